"""Isolation where the runner belongs to a user without rights: the user namespace comes first then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

import treadle
from treadle.model.container import Isolation

from .boxes import Box
from .link_server import Server
from .running import Runner

USER = "61234"  # nobody has this number
BECOME = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]
PARTS = [str(Path(treadle.__file__).parents[1]), str(Path(msgspec.__file__).parents[1])]
ENV = {"PYTHONPATH": ":".join(PARTS), "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "PATH": os.defpath}


def _python() -> str:
    """An interpreter of our version that this user may run."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}", "/usr/bin/python3"):
        argv = [*BECOME, python, "-c", "import treadle, msgspec, sys; print(sys.version_info.minor)"]
        try:
            done = subprocess.run(argv, env=ENV, capture_output=True, text=True, cwd="/", check=False)
        except OSError:
            continue
        if done.stdout.strip() == str(sys.version_info.minor):
            return python
    return ""


def _trouble() -> str:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return "it takes root, and setpriv, to become another user"
    python = _python()
    if not python:
        return "no interpreter of this version can be run by other users"
    argv = [*BECOME, python, "-P", "-m", "treadle.runner.trial"]
    done = subprocess.run(argv, env=ENV, capture_output=True, cwd="/tmp", check=False)
    return str(msgspec.json.decode(done.stdout)["2"]) if done.returncode == 0 else done.stderr.decode()[-300:]


TROUBLE = _trouble()
pytestmark = [pytest.mark.process, pytest.mark.skipif(bool(TROUBLE), reason=TROUBLE)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of this user, in a place that it may enter."""
    with TemporaryDirectory(prefix="box-") as name:
        shutil.chown(name, int(USER), int(USER))
        yield Path(name)


@pytest.fixture
def box(folder: Path, server: Server) -> Iterator[Box]:
    """A container of this user, with data beside it that is this user's own."""
    (folder / "data").mkdir()
    (folder / "data" / "credentials.toml").write_text("secret")
    for path in (folder / "data", folder / "data" / "credentials.toml"):
        shutil.chown(path, int(USER), int(USER))
    runner = Runner(folder, server)
    runner.python, runner.env = [*BECOME, _python()], ENV
    runner.owner = int(USER)
    yield Box(runner, folder, Isolation.NAMESPACES, hidden=[str(folder / "data")])
    runner.end()


def test_it_is_the_same_user_inside_without_any_right(box: Box) -> None:
    """The user's number is mapped to itself, and to no other."""
    assert box.run("return os.getuid(), os.getgid(), os.getpid()") == [int(USER), int(USER), 2]
    status = box.run("return Path('/proc/self/status').read_text()")
    assert "CapEff:\t0000000000000000" in status and "CapBnd:\t0000000000000000" in status


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("Path(DATA, 'credentials.toml').read_text()", "FileNotFoundError"),
        ("Path('/usr/made').write_text('x')", "OSError"),
        ("Path('/made').write_text('x')", "OSError"),
        ("os.kill(PID, 0)", "ProcessLookupError"),
        ("Path(f'/proc/{PID}/environ').read_text()", "FileNotFoundError"),
        ("os.setuid(0)", "OSError"),
    ],
)
def test_what_is_refused(box: Box, folder: Path, code: str, refusal: str) -> None:
    """Also what belongs to the very same user outside."""
    outside = subprocess.Popen([*BECOME, "sleep", "600"])
    try:
        found = box.refusal(code, DATA=str(folder / "data"), PID=outside.pid)
    finally:
        outside.kill()
        outside.wait()
    assert found in (refusal, "PermissionError")


@pytest.mark.parametrize("call", ["libc.mount(b'x', b'/tmp', b'tmpfs', 0, None)", "libc.unshare(0x10000000)"])
def test_no_right_comes_back(box: Box, call: str) -> None:
    """The rights of the user namespace are given up, and none can be made in it."""
    assert box.run(f"import ctypes; libc = ctypes.CDLL(None); return {call}") == -1


def test_ordinary_things_work(box: Box, server: Server) -> None:
    """Programs, its own folder, temporary files, shared memory, the network."""
    assert box.run("""
        import multiprocessing as m, socket, subprocess, tempfile
        Path("made").write_text("ok")
        tempfile.NamedTemporaryFile().write(b"x")
        assert m.get_context("fork").Pool(2).map(abs, [-1, -2]) == [1, 2]
        socket.create_connection(("127.0.0.1", PORT), 5).close()
        return subprocess.check_output(["/bin/cat", "made"], text=True)
    """, PORT=server.port) == "ok"
