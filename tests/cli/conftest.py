"""Runs the real `treadle` command against a peer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdk.peer import TOKEN, Peer

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A running peer."""
    started = Peer()
    yield started
    started.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working directory of the command."""
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def treadle(peer: Peer, folder: Path, tmp_path: Path) -> Run:
    """Run `treadle ARGS…` in the folder, with the peer as its server unless `env` says otherwise."""

    def run(*args: str, **env: str) -> Done:
        known = {"TREADLE_URL": peer.url, "TREADLE_TOKEN": TOKEN, "TREADLE_DATA": str(tmp_path / "data")}
        given = {key: value for key, value in (os.environ | known | env).items() if value}
        command = [sys.executable, "-m", "treadle", *args]
        return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=60, check=False)

    return run


def said_once(done: Done, code: int = 1) -> str:
    """The one line of an error; there is nothing else: no output, no traceback."""
    assert done.returncode == code, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]
