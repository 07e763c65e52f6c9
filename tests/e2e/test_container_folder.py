"""What a hostile task can make of its container's folder, at each level of isolation: nothing that the agent trusts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from place import Place, until

from treadle.model.container import Isolation
from treadle.model.wire import RunSpec
from treadle.runtime import isolation, processes
from treadle.runtime.engine import Engine
from treadle.runtime.engine import find as find_engine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BASE = "treadle-test/debian:12"
NAMES = {0: "process", 1: "landlock", 2: "namespaces"}
# Puts a link, a pipe or a file in the place of another, by whatever way there is, and waits for its end.
HOSTILE = """
    import json, os, pathlib, time
    from treadle import Image, task_queue

    def put(path, kind, content):
        if kind == "link":
            os.symlink(content, path)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            with open(path, "wb") as file:
                file.write(bytes.fromhex(content))

    def attempt(path, kind, content):
        for way in (
            lambda: (put(path + ".mine", kind, content), os.rename(path + ".mine", path)),
            lambda: (os.path.lexists(path) and os.unlink(path), put(path, kind, content)),
            lambda: put(path, kind, content),
        ):
            try:
                way()
            except OSError:
                continue
            return

    @task_queue(retries=0, keep_warm_seconds=60 OPTIONS)
    def handler(orders):
        for name, kind, content in orders:
            attempt(os.path.join(os.path.dirname(os.getcwd()), name), kind, content)
        pathlib.Path("new").write_text("done")
        os.rename("new", "done")
        while not os.path.exists("go"):
            time.sleep(0.01)
        return "went on"
"""


def _engine() -> Engine:
    found, why = find_engine()
    if found is None or not found.ask("image", "inspect", BASE):
        pytest.skip(f"isolation level 3 is not tested here: {why or f'there is no image {BASE}'} (tests/engine.sh up)")
    return found


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def level(request: pytest.FixtureRequest) -> int:
    """Each level that this machine gives."""
    if request.param == Isolation.ENGINE:
        _engine()
    elif request.param and (trouble := isolation.tried()[Isolation(request.param)]):
        pytest.skip(f"isolation level {request.param} does not work here: {trouble}")
    return int(request.param)


@pytest.fixture(scope="module")
def hostile(level: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server where the hostile queue is deployed at a level."""
    place = Place(tmp_path_factory.mktemp("hostile"))
    try:
        up(place, level)
        place.app(HOSTILE.replace("OPTIONS", f', image=Image(base_image="{BASE}")' if level == 3 else ""))
        done = place.cli("deploy", "app.py:handler", "--name", "q", timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        yield place
        assert place.stop() == 0, place.log.read_text()
        assert place.processes() == []
    finally:
        place.clean_up()
        if level == 3:
            clear_away(place)


def clear_away(place: Place) -> None:
    docker = _engine()
    for folder in (place.data / "agent" / "containers").iterdir():
        docker.ask("rm", "--force", folder.name)
    for folder in (place.data / "images").iterdir():
        docker.ask("rmi", "--force", f"treadle/{folder.name}")


def up(place: Place, level: int) -> None:
    place.up(env={"TREADLE_ISOLATION": NAMES[level]} if level in NAMES else None)


def running(place: Place) -> tuple[str, Path]:
    """A container that works, idle or not yet; its id and folder."""
    first = place.submit(orders=[])
    container_id = str(place.running(first)["container_id"])
    folder = place.data / "agent" / "containers" / container_id
    (folder / "code" / "go").touch()
    assert place.ended(first)["result"] == "went on"
    for name in ("go", "done"):
        (folder / "code" / name).unlink()
    return container_id, folder


def attacked(place: Place, folder: Path, *orders: tuple[str, str, str]) -> str:
    """The id of a task that has carried the orders out in this container, as far as it could."""
    task_id = place.submit(orders=orders)
    until((folder / "code" / "done").exists, what="the attack")
    return task_id


def reason_of_end(place: Place, container_id: str) -> str:
    """Kills a container; what its agent tells of its end."""
    processes.kill(processes.members(container_id, -1))

    def stopped() -> dict[str, Any] | None:
        view = place.request("GET", f"/v2/containers/{container_id}").json()
        return dict(view) if view["status"] == "STOPPED" else None

    reason = str(until(stopped, what="the end of the container")["reason"])
    assert "heartbeat" not in reason, reason  # the agent was there to tell it
    return reason


def test_links_in_its_folder_are_not_followed(hostile: Place, level: int) -> None:
    """Neither to be read, so that the end of a container would tell the server's token, nor to be written through."""
    container_id, folder = running(hostile)
    planted = hostile.data / "planted"
    secrets = str(hostile.data / "credentials.toml")
    attacked(
        hostile, folder, ("last_words", "link", secrets), ("log", "link", secrets),
        *((name, "link", str(planted)) for name in ("oom.new", "peak.new", "oom", "peak", "state.json.new")),
    )  # fmt: skip
    links = [path.name for path in folder.iterdir() if path.is_symlink()]
    assert bool(links) == (level == 0), links
    reason = reason_of_end(hostile, container_id)
    assert hostile.token not in reason and "token" not in reason
    assert hostile.token not in hostile.log.read_text()
    assert not planted.exists()


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(hostile: Place, level: int) -> None:
    """Opening one waits for who writes; the end of its container is told all the same, and the next one starts."""
    container_id, folder = running(hostile)
    attacked(hostile, folder, *((name, "pipe", "") for name in ("last_words", "log", "oom", "docker.json.new")))
    pipes = [path.name for path in folder.iterdir() if path.is_fifo()]
    assert bool(pipes) == (level == 0), pipes
    reason_of_end(hostile, container_id)
    again, _ = running(hostile)
    assert again != container_id


@pytest.fixture
def victim(level: int) -> Iterator[tuple[str, int]]:
    """Somebody else's, on the same machine: a container of the engine (level 3) and a process."""
    name = f"treadle-test-victim-{processes.identity(1)!s}".replace(":", "-")
    if level == 3:
        _engine().run("run", "--detach", "--network", "none", "--name", name, BASE, "sleep", "600")
    with subprocess.Popen(["sleep", "600"]) as process:
        yield name, process.pid
        process.kill()
    if level == 3:
        _engine().ask("rm", "--force", name)


def test_the_next_agent_kills_nobody_for_what_a_container_has_written(
    hostile: Place, level: int, victim: tuple[str, int], tmp_path: Path
) -> None:
    """Forged notes of who its runner is, which groups it is in and which container of the engine it is."""
    container_id, folder = running(hostile)
    name, pid = victim
    imitated = tmp_path / container_id  # a folder that looks like a group with the victim in it
    imitated.mkdir()
    (imitated / "cgroup.procs").write_text(f"{pid}\n")
    run = msgspec.msgpack.decode((folder / "run.msgpack").read_bytes(), type=RunSpec)
    notes = {
        "run.msgpack": msgspec.msgpack.encode(msgspec.structs.replace(run, procs_files=[str(imitated / "cgroup.procs")])),
        "state.json": _json(pid=pid, identity=processes.identity(pid), started_at=1.0, limits="cgroup2"),
        "docker.json": _json(container_id=name, started_at=1.0),
    }  # fmt: skip
    before = {note: (folder / note).read_bytes() for note in notes if (folder / note).exists()}
    task_id = attacked(hostile, folder, *((note, "file", data.hex()) for note, data in notes.items()))
    if level:
        assert {note: (folder / note).read_bytes() for note in notes if (folder / note).exists()} == before
    hostile.kill9()
    up(hostile, level)
    if level:  # its notes are as they were, so it goes on
        (folder / "code" / "go").touch()
        task = hostile.ended(task_id)
        assert (task["result"], len(task["attempts"])) == ("went on", 1), task["failure_reason"]
        reason_of_end(hostile, container_id)
    else:
        assert hostile.ended(task_id)["attempts"][0]["failure_kind"] == "lost"
        until(lambda: not processes.members(container_id, -1), what="the end of what is left of it")
    assert processes.identity(pid), "the victim was killed"
    if level == 3:
        assert _engine().run("inspect", "--format", "{{.State.Running}}", name) == "true"


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()
