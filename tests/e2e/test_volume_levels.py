"""Volumes at each isolation level: where they are found, and that nothing else of the data folder comes with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from place import Place, until

from treadle.model.container import Isolation
from treadle.runtime.isolation import tried

pytestmark = pytest.mark.e2e

TROUBLES = tried()
APP = """
import os
from pathlib import Path
from treadle import Volume, task_queue

@task_queue(name="{name}", volumes=[Volume("{name}", "{path}")], keep_warm_seconds=0)
def handler(path, write=""):
    file = Path(path, "file")
    before = file.read_text() if file.exists() else ""
    if write:
        file.write_text(write)
        os.replace(file, file)
    return before

@task_queue(name="{name}-look", volumes=[Volume("{name}", "{path}")])
def look(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return type(error).__name__
"""


def takes(level: Isolation) -> None:
    if TROUBLES.get(level):
        pytest.skip(f"level {level.value} does not work here: {TROUBLES[level]}")


@pytest.fixture
def at(own_place: Place) -> Iterator[Place]:
    """A place that a test starts at the level it is about."""
    yield own_place
    assert own_place.stop() == 0


def deploy(place: Place, name: str, path: str) -> None:
    place.app(APP.format(name=name, path=path), f"app_{name}.py")
    for func in ("handler", "look"):
        done = place.cli("deploy", f"app_{name}.py:{func}")
        assert done.returncode == 0, done.stderr


def run(place: Place, queue: str, **kwargs: str) -> object:
    return place.ended(place.submit(queue, **kwargs))["result"]


@pytest.mark.parametrize("level", ["process", "landlock", "namespaces"])
def test_a_relative_path_works_at_every_level(at: Place, level: str) -> None:
    """One container writes, the next reads; at level 1 and above it does not see the volumes of others."""
    kinds = {"process": Isolation.PROCESS, "landlock": Isolation.LANDLOCK, "namespaces": Isolation.NAMESPACES}
    takes(kinds[level])
    at.up(env={"TREADLE_ISOLATION": level})
    for name in ("mine", "other"):
        deploy(at, name, "data/here")
    assert run(at, "mine", path="data/here", write="of one") == ""
    assert run(at, "mine", path="data/here") == "of one"
    assert run(at, "other", path="data/here") == ""
    assert (at.data / "volumes" / "default" / "mine" / "file").read_text() == "of one"
    if level != "process":
        seen = run(at, "mine-look", path=str(at.data / "volumes" / "default"))
        assert seen in (["mine"], "PermissionError")
        assert run(at, "mine-look", path=str(at.data / "volumes" / "default" / "other")) in ("FileNotFoundError", "PermissionError")


def test_an_absolute_path_is_there_at_level_2(at: Place) -> None:
    """And a relative one below /volumes, too; both are the volume, for reading and writing."""
    takes(Isolation.NAMESPACES)
    at.up(env={"TREADLE_ISOLATION": "namespaces"})
    deploy(at, "absolute", "/models/large")
    deploy(at, "relative", "./models")
    assert run(at, "absolute", path="/models/large", write="kept") == ""
    assert run(at, "absolute", path="/models/large") == "kept"
    assert run(at, "absolute-look", path="/models") == ["large"]
    assert run(at, "relative", path="/volumes/models", write="same") == ""
    assert run(at, "relative", path="models") == "same"


def test_an_absolute_path_waits_for_a_machine_that_gives_it(at: Place) -> None:
    """The task says what it takes, and what there is."""
    at.up(env={"TREADLE_ISOLATION": "process"})
    deploy(at, "waits", "/models")
    task_id = at.submit("waits", path="/models")
    until(lambda: "unschedulable" in at.task(task_id)["why"], what="the reason")
    assert at.task(task_id)["why"].startswith(
        "unschedulable: mount_path='/models' takes isolation level 2 (namespaces); this cluster has at most 0 (process)"
    )
    at.cancel(task_id)
