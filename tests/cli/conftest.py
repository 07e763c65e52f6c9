"""Runs the `treadle` command against a peer: its `main`, in this process, which saves half a second a command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdk.peer import TOKEN, Peer
from treadle.cli import main
from treadle.sdk.load import ALIASES

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
def treadle(peer: Peer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `treadle ARGS…` in the folder, with the peer as its server unless `env` says otherwise."""

    def run(*args: str, **env: str) -> Done:
        known = {"TREADLE_URL": peer.url, "TREADLE_TOKEN": TOKEN, "TREADLE_DATA": str(tmp_path / "data")}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "path", sys.path[:])
            for key, value in (known | env).items():
                patch.setenv(key, value) if value else patch.delenv(key, raising=False)
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main(args)
        _forget_modules(folder, ALIASES)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(args, int(end.value.code or 0), out, err)

    return run


def _forget_modules(*folders: Path) -> None:
    """Have the next command import the user's files anew, as a new process does."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(Path(file).is_relative_to(one) for one in folders):
            del sys.modules[name]


def said_once(done: Done, code: int = 1) -> str:
    """The one line of an error; there is nothing else: no output, no traceback."""
    assert done.returncode == code, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]
