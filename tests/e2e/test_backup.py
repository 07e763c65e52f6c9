"""Backup, restore, verify and refusals, as they are used: commands beside real servers, and what is said to people."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest
from place import FINAL, Place, until

from treadle.store.schema import known_scripts

pytestmark = pytest.mark.e2e

APP = """
    import time
    from pathlib import Path
    from treadle import Output, task_queue

    @task_queue(retries=2, secrets=["WORD"], keep_warm_seconds=60)
    def handler(n=0, wait_for=""):
        import os
        while wait_for and not Path(wait_for).exists():
            time.sleep(0.01)
        path = Path(f"{n}.txt")
        path.write_text(f"{os.environ['WORD']} {n}")
        Output(path=path).save()
        return n
"""


@pytest.fixture
def lived(own_place: Place) -> Place:
    """A server that has run a task with an output and a secret."""
    own_place.up()
    assert own_place.cli("secret", "create", "WORD", "hidden").returncode == 0
    own_place.deploy(APP)
    own_place.ended(own_place.submit(n=0))
    return own_place


def said(place: Place, *args: str, **also: Any) -> str:
    done = place.cli(*args, **also)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def refusal(place: Place, *args: str) -> str:
    """What a command says that fails: one line, no traceback."""
    done = place.cli(*args)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in done.stdout
    return lines[0]


def test_a_backup_under_load_comes_back_whole(
    lived: Place, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Taken while tasks pour in, it verifies, and a server over it ends every task that was accepted before it."""
    accepted: list[str] = []
    stop = threading.Event()

    def pour() -> None:
        while not stop.is_set():
            accepted.append(lived.submit(n=len(accepted), wait_for="" if accepted else str(tmp_path / "go")))

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        until(lambda: len(accepted) > 10)
        before = list(accepted)
        told = said(lived, "backup", str(tmp_path / "b.tar"))
        until(lambda: len(accepted) > len(before) + 5)
    finally:
        stop.set()
        pouring.join()
    assert "read back and found good" in told and str(tmp_path / "b.tar") in told and "volumes" in told
    assert (tmp_path / "b.tar").stat().st_mode & 0o077 == 0
    lived.stop()

    back = Place(tmp_path_factory.mktemp("back"))
    try:
        told = said(back, "restore", str(tmp_path / "b.tar"))
        assert "unfinished" in told and "revoked since are good again" in told
        assert "All is well" in said(back, "verify")
        (tmp_path / "go").touch()
        back.up()
        ended = {task_id: back.ended(task_id, seconds=90) for task_id in before}
        assert {task["status"] for task in ended.values()} == {"COMPLETE"}
        outputs = ended[before[1]]["outputs"]
        assert back.request("GET", outputs[0]["url"], token="").text == "hidden 1"
        assert back.stop() == 0
        assert "All is well" in said(back, "verify")
    finally:
        back.clean_up()


def test_commands_for_folders_at_rest_refuse_a_running_server(lived: Place, tmp_path: Path) -> None:
    """Neither is a folder in use examined, nor replaced, --force or not; the server is not disturbed."""
    said(lived, "backup", str(tmp_path / "b.tar"))
    assert "Another server uses" in refusal(lived, "verify")
    assert "Another server uses" in refusal(lived, "restore", str(tmp_path / "b.tar"), "--force")
    assert lived.request("GET", "/health").status_code == 200


def test_without_a_server_the_folder_is_backed_up_and_restored(lived: Place, tmp_path: Path) -> None:
    """Stopped or killed; a restore over a database takes --force, and a backup that is no backup is told."""
    lived.kill9()
    told = json.loads(lived.cli("backup", str(tmp_path / "b.tar"), "--json").stdout)
    assert told["missing"] == [] and told["schema"] == len(known_scripts())
    assert "--force" in refusal(lived, "restore", str(tmp_path / "b.tar"))
    (tmp_path / "other").write_bytes(b"x" * 1000)
    assert "no backup" in refusal(lived, "restore", str(tmp_path / "other"), "--force")
    said(lived, "restore", str(tmp_path / "b.tar"), "--force")
    assert lived.up().ended(lived.submit(n=7))["result"] == 7


def test_a_backup_replaces_nothing_but_a_backup(lived: Place, tmp_path: Path) -> None:
    """A slip of the hand costs nobody a file; the same name each night is fine."""
    file = tmp_path / "mine"
    file.write_text("precious")
    done = lived.cli("backup", str(file))
    assert (done.returncode, file.read_text()) == (1, "precious")
    assert "is there already, and is no backup: it was left as it is." in done.stderr
    file.unlink()
    for _ in range(2):
        done = lived.cli("backup", str(file))
        assert done.returncode == 0, done.stderr


def test_verify_tells_what_is_wrong(lived: Place) -> None:
    """Each thing is a line with its subject; exit code 1; JSON has the same."""
    assert lived.stop() == 0
    assert "All is well" in said(lived, "verify")
    connection = apsw.Connection(str(lived.data / "treadle.db"))
    connection.execute("UPDATE task SET attempts = 5 WHERE seq = 1")
    connection.close()
    next((lived.data / "blob" / "outputs").rglob("*-*-*-*-*/*")).unlink()
    done = lived.cli("verify")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert any(line.startswith("WRONG  attempts are counted: task ") for line in lines)
    assert any(line.startswith("WRONG  blobs: output ") for line in lines)
    found = json.loads(lived.cli("verify", "--json").stdout)["breaches"]
    assert {breach["name"] for breach in found} >= {"attempts are counted", "blobs"}


def test_a_damaged_database_is_refused_in_one_line(lived: Place) -> None:
    """`treadle up` says what is wrong and what to do, and leaves file and folder as they were."""
    assert lived.stop() == 0
    path = lived.data / "treadle.db"
    assert not path.with_name("treadle.db-wal").exists()  # a stop in good order leaves one file
    whole = path.read_bytes()
    for damage in (b"garbage" * 5000, whole[: len(whole) // 2], whole[:4096] + b"\xa5" * (len(whole) - 4096), b""):
        path.write_bytes(damage)
        line = refusal(lived, "up", "--port", "0")
        assert "treadle restore FILE" in line and str(path) in line
        assert path.read_bytes() == damage
    path.unlink()
    assert "is missing, though a server has run here" in refusal(lived, "up", "--port", "0")
    path.write_bytes(whole)
    assert lived.up().stop() == 0


def test_a_newer_schema_is_refused_and_an_older_one_upgraded(lived: Place) -> None:
    """A folder of a newer Treadle is left alone; the server says where the copy from before an upgrade is."""
    assert lived.stop() == 0
    path = lived.data / "treadle.db"
    shutil.copy(path, lived.data / "kept")
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", len(known_scripts()) + 1)
    connection.close()
    line = refusal(lived, "up", "--port", "0")
    assert f"schema version {len(known_scripts()) + 1}" in line and "newer" in line
    path.unlink()
    connection = apsw.Connection(str(path))
    for script in known_scripts()[:-1]:
        connection.execute(script)
    connection.pragma("user_version", len(known_scripts()) - 1)
    connection.close()
    lived.up()
    copy = lived.data / f"treadle.db.schema-{len(known_scripts()) - 1}"
    assert copy.exists()
    assert str(copy) in lived.log.read_text()


def test_after_a_kill_the_second_server_may_start_at_once(lived: Place, tmp_path: Path) -> None:
    """A server that is stopped still holds the folder; killed, it holds nothing, though its container lives on."""
    task_id = lived.submit(wait_for=str(tmp_path / "go"))
    lived.running(task_id)
    assert lived.process is not None
    lived.process.send_signal(signal.SIGSTOP)
    assert "Another server uses" in refusal(lived, "up", "--port", "0")
    lived.kill9()
    lived.up()
    (tmp_path / "go").touch()
    task = lived.ended(task_id)
    assert task["status"] in FINAL and (task["status"], len(task["attempts"])) == ("COMPLETE", 1)
