"""A local server starts by itself when none is configured, once, and is found by whoever comes later."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from treadle.client import Client
from treadle.model.settings import load
from treadle.sdk.local import read_server_file, stop_command

ENSURE = """
import sys
from treadle.model.settings import load
from treadle.sdk.console import Console
from treadle.sdk.local import ensure_server
settings = ensure_server(load(environ={"TREADLE_DATA": sys.argv[1]}), Console(sys.stderr))
print(settings.url, settings.token)
"""


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose server takes any free port, and is stopped in the end."""
    (tmp_path / "config.toml").write_text("port = 0")
    yield tmp_path
    subprocess.run([sys.executable, "-m", "treadle", "down", "--data", str(tmp_path)], capture_output=True, check=False)


def _ensure(data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ENSURE, str(data)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_that_stops_a_server_is_as_short_as_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the data folder only where the environment does not."""
    settings = load(data=tmp_path / "my data", environ={})
    monkeypatch.delenv("TREADLE_DATA", raising=False)
    assert stop_command(settings) == f"treadle down --data '{tmp_path}/my data'"
    assert stop_command(load(environ={})) == "treadle down"
    monkeypatch.setenv("TREADLE_DATA", f"{tmp_path}/my data")
    assert stop_command(settings) == "treadle down"


@pytest.mark.e2e
def test_processes_that_need_a_server_at_once_get_the_same(data: Path) -> None:
    """Three at the same time: one server, its token for all; only who started it says so."""
    ended = [process.communicate(timeout=60) for process in [_ensure(data) for _ in range(3)]]
    found = read_server_file(data)
    assert found is not None
    assert {out for out, _ in ended} == {f"{found.url} {load(data=data, environ={}).token}\n"}
    assert Client(found.url).health().pid == found.pid
    said = f"=> Started a local server at {found.url} (stop it with `treadle down --data {data}`)\n"
    assert said in [err for _, err in ended]


@pytest.mark.e2e
def test_a_server_that_was_killed_is_replaced(data: Path) -> None:
    """What a dead server left behind is not taken for a server."""
    gone = {"pid": 1, "url": "http://127.0.0.1:9", "started": 0}
    (data / "server.json").write_text(json.dumps(gone))
    out, err = _ensure(data).communicate(timeout=60)
    found = read_server_file(data)
    assert found is not None
    assert found.pid != 1
    assert out.startswith(f"{found.url} ")
    assert "Started a local server" in err


@pytest.mark.e2e
def test_detached_and_stopped_by_the_command(data: Path) -> None:
    """`up --detach` says where it runs and how to stop it; a second one starts nothing; `down` ends it."""
    command = [sys.executable, "-m", "treadle"]
    first = subprocess.run([*command, "up", "--detach", "--data", str(data)], capture_output=True, text=True, check=True)
    found = read_server_file(data)
    assert found is not None
    assert first.stdout == (
        f"Treadle runs at {found.url} (pid {found.pid}, data: {data}).\n"
        f"Stop it with `treadle down --data {data}`.\n"
    )
    again = subprocess.run([*command, "up", "--detach", "--data", str(data)], capture_output=True, text=True, check=True)
    assert again.stdout == f"A server runs at {found.url} already (pid {found.pid}).\n"
    down = subprocess.run([*command, "down", "--data", str(data)], capture_output=True, text=True, check=True)
    assert down.stdout.endswith(f"Stopped the server (pid {found.pid}).\n")
    assert read_server_file(data) is None
