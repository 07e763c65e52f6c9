"""A short campaign of crash tests; `make crash` runs long ones (docs/reliability.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .ground import TESTS

SECONDS = "20"  # no round begins after that


@pytest.mark.e2e
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kinds", ["kills", "power,links"])
def test_no_promise_is_broken_by_crashes(tmp_path: Path, kinds: str) -> None:
    """Under kills, cut links and cut power, nothing accepted is lost, runs twice at once, or is told wrongly."""
    command = [sys.executable, "-m", "crash.campaign", "--seconds", SECONDS, "--deeds", "80", "--rounds", kinds]
    with subprocess.Popen(
        [*command, "--folder", str(tmp_path)], cwd=TESTS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            told, _ = running.communicate(timeout=360)
        except subprocess.TimeoutExpired:
            running.terminate()  # not killed: it has to clear away what it has started
            raise
    assert running.returncode == 0, told
    assert "broken promises: none" in told
    assert not list(tmp_path.iterdir())
