"""Secrets end to end: from the command to the handler's environment, and to no other place where somebody may look."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from place import TREADLE, Place, until

pytestmark = pytest.mark.e2e

VALUE = "correct-horse-battery-staple"
HASH = """
    import hashlib, os
    from treadle import task_queue

    def digest(name):
        return hashlib.sha256(os.environ.get(name, "").encode()).hexdigest()
"""


def keep(place: Place, name: str, value: str) -> None:
    """Create a secret from stdin."""
    done = subprocess.run(
        [*TREADLE, "secret", "create", name, "-"], input=value, env=place.environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"Secret {name} created.\n"), done.stderr


def digest(value: str) -> str:
    import hashlib

    return hashlib.sha256(value.encode()).hexdigest()


# where it goes


def files_with(folder: Path, value: bytes) -> list[str]:
    """Files below a folder that hold the value."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and value in path.read_bytes():
                found.append(str(path))
        except FileNotFoundError:  # a container has ended meanwhile
            continue
    return found


def memory_of(process: psutil.Process) -> Iterator[bytes]:
    """All that a process can read and write of its own, part by part."""
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if found:
                start, end = int(found[1], 16), int(found[2], 16)
                memory.seek(start)
                yield memory.read(end - start)


def zygotes(place: Place) -> list[psutil.Process]:
    assert place.process is not None
    children = psutil.Process(place.process.pid).children(recursive=True)
    return [child for child in children if "treadle.runner.zygote" in " ".join(child.cmdline())]


def test_a_secret_reaches_the_handler_and_is_to_be_seen_nowhere_else(place: Place, tmp_path: Path) -> None:
    """Not in database, log, run records or any file, no command line, no task record, and not in the zygote's memory."""
    keep(place, "TOLD", VALUE)
    place.deploy(
        HASH
        + """
    import time
    from pathlib import Path

    @task_queue(secrets=["TOLD"])
    def handler(gate):
        while not Path(gate).exists():
            time.sleep(0.01)
        return digest("TOLD")
        """,
        name="told",
    )
    task_id = place.submit("told", gate=str(tmp_path / "gate"))
    place.running(task_id)
    value = VALUE.encode()
    assert files_with(place.data, value) == []
    assert VALUE not in place.log.read_text()
    assert VALUE not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    for path in (f"/v2/task/{task_id}/", "/v2/task/", "/v2/secrets"):
        assert VALUE not in place.request("GET", path).text
    found = zygotes(place)
    assert found, "the container was not forked: this test would show nothing"
    assert not any(value in part for zygote in found for part in memory_of(zygote))
    (tmp_path / "gate").touch()
    assert place.ended(task_id)["result"] == digest(VALUE)
    assert VALUE not in json.dumps(place.task(task_id))


def test_an_error_in_the_server_prints_no_values(place: Place) -> None:
    """A traceback in its log has the lines of code and none of their variables: here the key is a folder."""
    keep(place, "LOGGED", "logged-" + VALUE)
    key = place.data / "secret.key"
    moved = key.rename(place.data / "elsewhere")
    key.mkdir(mode=0o700)
    try:
        assert place.stop() == 0
        place.up()
        answer = place.request("GET", "/v2/secrets/LOGGED")
        refused = place.request("PATCH", "/v2/secrets/LOGGED", json={"value": "shown-" + VALUE})
        assert (answer.status_code, refused.status_code) == (500, 500)
        assert "secret.key, cannot be read: Is a directory" in answer.json()["error"]
    finally:
        key.rmdir()
        moved.rename(key)
    assert VALUE not in answer.text + refused.text + place.log.read_text()


# env, secrets, on_start


def test_env_and_secrets_are_there_in_on_start_and_in_the_handler(place: Place) -> None:
    """And where a name comes more than once, a secret wins over env, env over the image's, Treadle over all."""
    keep(place, "BOTH", "of the secret")
    keep(place, "STUB_TYPE", "of the secret")
    place.deploy(
        """
        import os
        from treadle import Image, task_queue

        NAMES = ("ONLY", "IMAGE", "BOTH", "STUB_TYPE")

        def look():
            return [os.environ.get(name) for name in NAMES]

        @task_queue(image=Image(env_vars={"IMAGE": "of the image", "ONLY": "of the image"}), on_start=look,
                    env={"ONLY": "of env", "BOTH": "of env", "STUB_TYPE": "of env"}, secrets=["BOTH", "STUB_TYPE"])
        def handler(context):
            return [context.on_start_value, look()]
        """,
        name="envs",
    )
    expected = ["of env", "of the image", "of the secret", "taskqueue/deployment"]
    assert place.ended(place.submit("envs"))["result"] == [expected, expected]


# names, changes


def test_an_unknown_secret_fails_deploy_and_put_by_its_name(place: Place) -> None:
    """Before anything runs."""
    place.app(HASH + '\n    @task_queue(secrets=["NOWHERE"])\n    def handler():\n        return 1\n', "unknown.py")
    done = place.cli("deploy", "unknown.py:handler", "--name", "unknown")
    assert done.returncode == 1
    assert done.stderr == (
        "error: Secret does not exist: NOWHERE. Create it with `treadle secret create NOWHERE`, or remove it from secrets=[…].\n"
    )
    done = place.script("from unknown import handler\nhandler.put()\n")
    assert done.returncode == 1
    assert "Secret does not exist: NOWHERE" in done.stderr


def test_a_change_is_seen_by_the_next_container(place: Place) -> None:
    """The one that runs goes on with what it has; no new deploy is needed."""
    keep(place, "MOVING", "old")
    place.deploy(
        HASH + '\n    @task_queue(secrets=["MOVING"], keep_warm_seconds=1)\n    def handler():\n        return digest("MOVING")\n',
        name="moving",
    )
    first = place.submit("moving")
    assert place.ended(first)["result"] == digest("old")
    changed = place.cli("secret", "modify", "MOVING", "new")
    assert changed.stdout == "Secret MOVING changed; containers that are started from now on get it.\n"
    until(lambda: place.task(first)["stats"]["active_containers"] == 0, what="scaling to zero")
    assert place.ended(place.submit("moving"))["result"] == digest("new")


def test_a_secret_survives_a_restart_of_the_server(own_place: Place) -> None:
    """kill -9 included: it was on disk, and its key too, before the command said so."""
    place = own_place.up()
    keep(place, "KEPT", VALUE)
    place.kill9()
    place.up()
    assert place.cli("secret", "show", "KEPT").stdout == f"{VALUE}\n"
    assert place.stop() == 0


# the command


def test_the_commands(place: Place) -> None:
    """Create, list, show, modify and delete, for people and for programs, with an error in one line."""
    assert place.cli("secret", "create", "CLI", "first").stdout == "Secret CLI created.\n"
    again = place.cli("secret", "create", "CLI", "second")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "already exists" in again.stderr and "second" not in again.stderr
    assert place.cli("secret", "show", "CLI").stdout == "first\n"
    assert json.loads(place.cli("secret", "modify", "CLI", "third", "--json").stdout)["name"] == "CLI"
    assert json.loads(place.cli("secret", "show", "CLI", "--json").stdout)["value"] == "third"
    table = place.cli("secret", "list").stdout.splitlines()
    assert table[0].split() == ["NAME", "CREATED", "UPDATED"]
    assert [line.split()[0] for line in table[1:-1]] == sorted(line.split()[0] for line in table[1:-1])
    assert "third" not in "".join(table)
    assert place.cli("secret", "delete", "CLI").stdout == "Secret CLI deleted.\n"
    assert place.cli("secret", "show", "CLI").returncode == 1
    lost = place.cli("secret", "create", "CLI")
    assert (lost.returncode, lost.stdout) == (1, "")
    assert "pass - and write it to stdin" in lost.stderr


def test_a_value_that_is_asked_for_is_not_shown(place: Place) -> None:
    """On a terminal the command asks twice, without an echo."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*TREADLE, "secret", "create", "ASKED"], env=place.environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    said = b""
    for question in (b"Value of ASKED: ", b"Repeat for confirmation: "):
        while not said.endswith(question):
            said += os.read(ours, 1000)
        os.write(ours, b"typed-value\n")
    assert process.wait(20) == 0, said
    os.close(ours)
    assert b"typed-value" not in said
    assert place.cli("secret", "show", "ASKED").stdout == "typed-value\n"
