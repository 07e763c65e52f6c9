"""The command itself: version, help, wrong usage, interruption; and `down` without a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import treadle as package
from cli.conftest import Run, said_once
from sdk.peer import TOKEN, Peer, task_view


def test_version_is_the_packages(treadle: Run) -> None:
    """`treadle --version` and the package agree."""
    assert treadle("--version").stdout == f"treadle {package.__version__}\n"


def test_without_arguments_there_is_help(treadle: Run) -> None:
    """The list of commands, not an error."""
    done = treadle()
    assert done.returncode == 0
    assert [word for word in ("up", "down", "deploy", "task", "webhook") if f"  {word} " not in done.stdout] == []


def test_help_shows_whole_sentences_and_arguments_as_they_are_typed(treadle: Run) -> None:
    """No summary of a command is cut, and no argument stands in braces."""
    assert "..." not in treadle("--help").stdout.partition("Commands:")[2]
    assert treadle("deploy", "--help").stdout.startswith("Usage: treadle deploy [OPTIONS] FILE.py:FUNC\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nope",), "No such command 'nope'. See `treadle --help`."),
        (("deploy",), "Missing argument 'FILE.py:FUNC'. See `treadle deploy --help`."),
        (("deploy", "a.py:f", "--nme", "x"), "No such option: --nme"),
        (("task",), "Missing command. See `treadle task --help`."),
        (("task", "lst"), "No such command 'lst'. Did you mean 'list'? See `treadle task --help`."),
        (("task", "list", "--limit", "0"), "--limit='0' is not allowed. Allowed: a whole number from 1 to 10000. See"),
        (("task", "wait", "x", "--timeout", "-1"), "--timeout='-1' is not allowed. Allowed: a number from 0. See"),
        (("up", "--port", "x"), "--port='x' is not allowed. Allowed: a whole number from 0 to 65535. See `treadle up --help`."),
    ],
)
def test_wrong_usage_is_one_line_with_the_help_to_read(treadle: Run, args: tuple[str, ...], said: str) -> None:
    """Exit code 2, as for every command line."""
    assert said in said_once(treadle(*args), code=2)


def test_a_wrong_setting_is_one_line(treadle: Run, tmp_path: Path) -> None:
    """A flag or a file with a value that is not allowed is told before anything starts."""
    assert "--port=70000 is not allowed" in said_once(treadle("up", "--port", "70000"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/config.toml").write_text("grace = 'long'")
    assert "config.toml: grace='long'" in said_once(treadle("task", "list"))


@pytest.mark.process
def test_help_loads_no_heavy_part(folder: Path) -> None:
    """`treadle --help` loads neither the server, nor psutil, rich or pathspec."""
    script = (
        "import sys\nfrom treadle.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'litestar', 'uvicorn', 'apsw', 'psutil', 'rich', 'pathspec', 'asyncio', 'treadle.server.main'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


@pytest.mark.process
def test_interruption_ends_with_130_and_without_a_traceback(peer: Peer, folder: Path) -> None:
    """Ctrl-C while waiting for a task."""
    peer.set_task(task_view("task-1"))
    command = [sys.executable, "-m", "treadle", "task", "wait", "task-1"]
    env = os.environ | {"TREADLE_URL": peer.url, "TREADLE_TOKEN": TOKEN}
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peer.wait_until(lambda: bool(peer.paths("GET")))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 130
    peer.set_task(task_view("task-1", "COMPLETE"))


@pytest.mark.process
def test_a_reader_that_goes_away_is_no_error(peer: Peer, folder: Path) -> None:
    """`treadle task list | head -0` prints no traceback."""
    for number in range(300):
        peer.set_task(task_view(f"task-{number}"))
    env = os.environ | {"TREADLE_URL": peer.url, "TREADLE_TOKEN": TOKEN}
    shell = f"{sys.executable} -m treadle task list --limit 10000 --json | head -c 1"
    done = subprocess.run(shell, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_down_without_a_server_says_so(treadle: Run, tmp_path: Path) -> None:
    """Nothing to stop is exit code 1, with the folder that was meant."""
    line = said_once(treadle("down", "--data", str(tmp_path / "none")))
    assert f"No server is running for {tmp_path / 'none'}" in line


def _server_file(folder: Path, process: psutil.Process, started: float) -> None:
    found = {"pid": process.pid, "url": "http://127.0.0.1:9", "started": started}
    (folder / "server.json").write_text(json.dumps(found))


@pytest.mark.process
def test_down_stops_the_process_it_names(treadle: Run, tmp_path: Path) -> None:
    """SIGTERM to the pid in server.json, then it waits until the process has ended."""
    script = "import signal, time; signal.signal(15, lambda *_: exit(0)); print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        process = psutil.Process(server.pid)
        _server_file(tmp_path, process, process.create_time())
        done = treadle("down", "--data", str(tmp_path))
        assert done.stdout == f"Stopped the server (pid {server.pid}).\n"
        assert server.wait(10) == 0


def test_down_never_touches_another_process(treadle: Run, tmp_path: Path) -> None:
    """A pid that belongs to another process by now is left alone."""
    process = psutil.Process()
    _server_file(tmp_path, process, process.create_time() - 1000)
    assert "No server is running" in said_once(treadle("down", "--data", str(tmp_path)))
