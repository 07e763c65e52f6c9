"""`treadle doctor`: what it finds, how it says so, and what its exit code means."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from cli.conftest import Run

pytestmark = pytest.mark.process

NAMES = ["python", "system", "data folder", "disk", "port", "limits", "isolation", "gpu", "docker"]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_everything_is_told_in_one_line_each(treadle: Run) -> None:
    """Verdict, what was looked at, what was found; the last line is the sum."""
    done = treadle("doctor", TREADLE_URL="", TREADLE_TOKEN="")
    lines = [line for line in done.stdout.splitlines() if line[:1] != " "]
    assert [line[7:20].strip() for line in lines[:-1]] == NAMES
    assert "level " in done.stdout and "memory is held by" in done.stdout and "fsync" in done.stdout
    assert lines[-1] in ("Treadle runs here.", "Treadle does not run here: 1 fault.")


def test_without_a_fault_the_exit_code_is_0(treadle: Run, tmp_path: Path) -> None:
    """A free port and a folder that can be made; notes do not count."""
    done = treadle("doctor", "--port", str(free_port()), TREADLE_URL="", TREADLE_FAKE_GPUS="A10G")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Treadle runs here."), done.stdout
    assert "A10G" in done.stdout
    assert not (tmp_path / "data").exists()


def test_json_is_a_list_of_findings(treadle: Run) -> None:
    """For programs; the sum goes to stderr."""
    done = treadle("doctor", "--json", "--port", str(free_port()), TREADLE_URL="")
    findings = json.loads(done.stdout)
    assert [one["name"] for one in findings] == NAMES
    assert {one["verdict"] for one in findings} <= {"ok", "note"}
    assert done.stderr == "Treadle runs here.\n"


def test_a_port_that_is_taken_is_a_fault(treadle: Run) -> None:
    """With what to do about it, and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = treadle("doctor", "--port", str(listener.getsockname()[1]), TREADLE_URL="")
    assert done.returncode == 1
    assert "FAULT  port" in done.stdout and "treadle up --port" in done.stdout
    assert done.stdout.endswith("Treadle does not run here: 1 fault.\n")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TREADLE_ISOLATION", "bwrap", "Allowed: auto, process, landlock, namespaces."),
        ("TREADLE_LIMITS", "ulimit", "Allowed: auto, cgroup2, cgroup1, watchdog."),
        ("TREADLE_SHARED_FOLDERS", "/does/not/exist", "/does/not/exist is not there"),
    ],
)
def test_a_wrong_setting_of_the_agent_is_a_fault(treadle: Run, variable: str, value: str, said: str) -> None:
    """The agent would not start with it."""
    done = treadle("doctor", "--port", str(free_port()), TREADLE_URL="", **{variable: value})
    assert done.returncode == 1
    assert said in done.stdout


def test_less_isolation_than_there_could_be_is_a_note(treadle: Run) -> None:
    """With the reason, here that somebody has asked for it."""
    done = treadle("doctor", "--port", str(free_port()), TREADLE_URL="", TREADLE_ISOLATION="process")
    assert "note   isolation    level 0 (process); not more, because: TREADLE_ISOLATION=process" in done.stdout
    assert done.returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_fault(treadle: Run, tmp_path: Path) -> None:
    """Where the data folder is to be."""
    (tmp_path / "closed").mkdir(mode=0o500)
    done = treadle("doctor", "--data", str(tmp_path / "closed" / "data"), TREADLE_URL="")
    assert done.returncode == 1 and "cannot be written" in done.stdout
