"""What the documentation tells people to type is typed here: the quickstart and `make demo`, against real servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pages import DOCS, ROOT, blocks

pytestmark = pytest.mark.e2e
SECONDS = 110


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home directory of its own, whose servers listen on a free port instead of 1994; nothing may live on in it."""
    (tmp_path / ".treadle").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (tmp_path / ".treadle" / "config.toml").write_text(f"port = {probe.getsockname()[1]}\n")
    try:
        yield tmp_path
        assert _alive(tmp_path) == [], "processes were left running"
    finally:
        for process in _alive(tmp_path):
            process.kill()


def _alive(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if any(str(folder) in text for text in [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]):
            found.append(process)
    return found


def _environ(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    cache = clean.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
    return clean | {"HOME": str(home), "PATH": path, "UV_CACHE_DIR": cache, "NO_PROXY": "127.0.0.1"}


def _script(page: Path, port: str) -> str:
    """The page as one shell script: `file=NAME` blocks are written, `run` blocks are run, in their order."""
    steps = ["set -euo pipefail"]
    for block in blocks(page):
        if block.info.startswith("file="):
            steps.append(f"cat > {block.info.removeprefix('file=')} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
        elif block.info == "run":
            steps.append(block.text.replace("127.0.0.1:1994", f"127.0.0.1:{port}"))
    return "\n".join(steps)


def test_the_quickstart_does_what_it_says(home: Path) -> None:
    """Typing the quickstart block by block deploys, submits, gets the result, fails as told, and stops the server."""
    port = (home / ".treadle" / "config.toml").read_text().split()[-1]
    work = home / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", "-c", _script(DOCS / "quickstart.md", port)],
        cwd=work, env=_environ(home), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for expected in (
        "Started a local server at",
        "Deployed square v1",
        '"task_id":',
        '"squared":144',
        "Enqueued task: ",
        "{'squared': 49}",
        "FAILED after 3 attempts: ZeroDivisionError: division by zero",
        "Stopped the server",
    ):
        assert expected in said, f"{expected!r} is missing in:\n{said}"


def test_the_demo_ends_well_and_leaves_nothing(home: Path) -> None:
    """`make demo` makes every thumbnail, checks every webhook, prints the table and leaves no process behind."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT, env=_environ(home) | {"TMPDIR": str(home)}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "received 12/12" in done.stdout
    table = [line.split() for line in done.stdout.splitlines() if " COMPLETE " in line and "/output/id/" in line]
    assert len(table) == 12
    assert all(row[-1].startswith("http://127.0.0.1:") for row in table)
    assert "12 pictures became 36 thumbnails" in done.stdout
    assert list(home.glob("treadle-demo-*")) == []
