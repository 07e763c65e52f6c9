"""Isolation level 3 through the product: a real Docker or Podman runs the containers (tests/engine.sh up)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from place import Place, until

from treadle.runtime.engine import Engine
from treadle.runtime.engine import find as find_engine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BASE = "treadle-test/debian:12"
APP = f"""
    import os, pathlib, sys, time
    from treadle import Image, Output, task_queue

    image = Image(base_image="{BASE}", python_packages=["six"], commands=["echo made > /made"])

    @task_queue(image=image, memory=128, retries=0, keep_warm_seconds=60, env={{"KEY": "value"}})
    def look():
        import six
        tried = {{}}
        for path in ("/made", "/usr/x", six.__file__):
            try:
                pathlib.Path(path).write_text("x")
            except OSError as error:
                tried[path] = error.strerror
        pathlib.Path("here").write_text("x")
        pathlib.Path("/tmp/here").write_text("x")
        Output(path="here").save()
        return {{
            "made": pathlib.Path("/made").read_text(), "python": sys.version.split()[0], "key": os.environ["KEY"],
            "refused": sorted(set(tried.values())), "tried": len(tried), "data": os.path.exists("DATA"),
            "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
        }}

    @task_queue(image=image, memory=64, retries=0)
    def hog():
        held = []
        for _ in range(4096):
            held.append(b"x" * 256 * 1024)

    @task_queue(image=image, memory=64, retries=0)
    def wait(file):
        while not pathlib.Path(file).exists():
            time.sleep(0.01)
        return "waited"
"""


@pytest.fixture(scope="module")
def docker() -> Engine:
    """The engine; without one these tests are skipped, and say why."""
    found, why = find_engine()
    if found is None or not found.ask("image", "inspect", BASE):
        pytest.skip(f"isolation level 3 is not tested here: {why or f'there is no image {BASE}'} (tests/engine.sh up)")
    return found


@pytest.fixture(scope="module")
def engine_place(docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running server whose images are an engine's."""
    place = Place(tmp_path_factory.mktemp("engine"))
    try:
        place.up()
        place.app(APP.replace("DATA", str(place.data / "credentials.toml")))
        yield place
        assert place.stop() == 0, place.log.read_text()
        assert containers(docker, place) == []
    finally:
        place.clean_up()
        for name in containers(docker, place):
            docker.ask("rm", "--force", name)
        for folder in (place.data / "images").iterdir():
            docker.ask("rmi", "--force", f"treadle/{folder.name}")


def containers(docker: Engine, place: Place) -> list[str]:
    """Of this server, running or not."""
    named = docker.run("ps", "--all", "--filter", "label=treadle.container", "--format", "{{.Names}}").splitlines()
    ours = "{{range .Mounts}}{{.Source}} {{end}}"
    return [name for name in named if str(place.data) in docker.ask("inspect", "--format", ours, name)]


def deployed(place: Place, function: str) -> None:
    done = place.cli("deploy", f"app.py:{function}", "--name", function, timeout=200)
    assert done.returncode == 0, done.stderr


def test_a_base_image_runs_in_a_container_of_the_engine(engine_place: Place, docker: Engine) -> None:
    """Its Python, its files and the packages; the root is read-only, the working directory and /tmp are not."""
    deployed(engine_place, "look")
    task = engine_place.ended(engine_place.submit("look"), 60)
    assert task["status"] == "COMPLETE", task["failure_reason"]
    result = task["result"]
    assert (result["made"], result["key"], result["data"]) == ("made\n", "value", False)
    assert (result["tried"], result["refused"]) == (3, ["Read-only file system"])
    assert result["processes"] < 10, "other processes are seen"
    assert [output["name"] for output in task["outputs"]] == ["here"]
    record = engine_place.request("GET", f"/v2/containers/{task['container_id']}").json()
    assert record["isolation"] == 3


def test_no_secret_and_no_token_is_seen_from_outside(engine_place: Place, docker: Engine) -> None:
    """The environment goes in by a pipe: neither the engine's records nor a file nor a command line has it."""
    engine_place.ended(engine_place.submit("look"), 60)
    (name, *_) = containers(docker, engine_place)
    seen = docker.run("inspect", name)
    assert "TREADLE_TOKEN" not in seen and "KEY=value" not in seen
    assert not list((engine_place.data / "agent" / "containers" / name).glob("environment"))


def test_a_task_that_takes_too_much_memory_is_told_so(engine_place: Place, docker: Engine) -> None:
    """By the counters of the container's own group, with peak and limit."""
    deployed(engine_place, "hog")
    task = engine_place.ended(engine_place.submit("hog"), 60)
    assert task["attempts"][0]["failure_kind"] == "oom", task["failure_reason"]
    assert "at a limit of 64 MiB" in task["failure_reason"]


def test_a_container_survives_its_server_and_is_adopted(engine_place: Place, docker: Engine) -> None:
    """After kill -9 the next server finds it by its label; its task finishes once."""
    deployed(engine_place, "wait")
    task_id = engine_place.submit("wait", file="go")
    container = engine_place.running(task_id)["container_id"]
    until(lambda: container in containers(docker, engine_place), what="the container")
    before = docker.run("inspect", "--format", "{{.State.Pid}}", container)
    engine_place.kill9()
    engine_place.up()
    assert docker.run("inspect", "--format", "{{.State.Pid}}", container) == before
    (engine_place.data / "agent" / "containers" / container / "code" / "go").touch()
    task = engine_place.ended(task_id, 60)
    assert (task["result"], len(task["attempts"])) == ("waited", 1), task["failure_reason"]


def test_a_container_that_is_killed_by_hand_is_seen_at_once_and_removed(engine_place: Place, docker: Engine) -> None:
    """Not out of memory: nothing says so."""
    deployed(engine_place, "wait")
    task_id = engine_place.submit("wait", file="never")
    container = engine_place.running(task_id)["container_id"]
    os.kill(int(docker.run("inspect", "--format", "{{.State.Pid}}", container)), signal.SIGKILL)
    task = engine_place.ended(task_id, 10)
    assert (task["status"], task["attempts"][0]["failure_kind"]) == ("FAILED", "lost")
    assert "out of memory" not in task["failure_reason"]
    until(lambda: container not in containers(docker, engine_place), what="the removal")


def test_a_blocked_network_is_refused_at_the_deploy(engine_place: Place, docker: Engine) -> None:
    """Nothing runs with more than it was to have."""
    engine_place.app(
        f"""
        from treadle import Image, task_queue

        @task_queue(image=Image(base_image="{BASE}"), block_network=True)
        def shut(): pass
        """,
        "shut.py",
    )
    done = engine_place.cli("deploy", "shut.py:shut", "--name", "shut", timeout=200)
    assert done.returncode == 1
    assert "block_network=True cannot be had with an image of Docker or Podman yet" in done.stderr


def test_a_dockerfile_is_built_from_its_context(engine_place: Place, docker: Engine) -> None:
    """The context is uploaded, and its lines are in the log of the deploy."""
    folder = engine_place.code / "docker"
    folder.mkdir()
    (folder / "word").write_text("from the context")
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY word /word\n")
    engine_place.app(
        """
        import pathlib
        from treadle import Image, task_queue

        @task_queue(image=Image.from_dockerfile("docker/Dockerfile") if pathlib.Path("docker").exists() else None)
        def word():
            return pathlib.Path("/word").read_text()
        """,
        "word.py",
    )
    done = engine_place.cli("deploy", "word.py:word", "--name", "word", timeout=200)
    assert done.returncode == 0, done.stderr
    assert "=> Syncing the context of the Dockerfile" in done.stdout and "COPY word /word" in done.stdout
    assert engine_place.ended(engine_place.submit("word"), 60)["result"] == "from the context"
    subprocess.run(["rm", "-r", str(folder)], check=True)
