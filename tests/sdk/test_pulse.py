"""The moving line of a terminal: there while something takes its time, gone when anything else is printed."""

from __future__ import annotations

import os
from io import StringIO

import pytest

from treadle.sdk import pulse
from treadle.sdk.console import Console


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No patience, on a terminal that can do it."""
    monkeypatch.setattr(pulse, "PATIENCE", 0.0)
    monkeypatch.setattr(pulse, "EACH", 0.001)
    monkeypatch.setenv("TERM", "xterm")


def read_until(screen: int, wanted: str) -> str:
    shown = b""
    while wanted.encode() not in shown:
        shown += os.read(screen, 1000)
    return shown.decode()


def test_a_terminal_shows_what_takes_its_time_and_for_how_long(quick: None) -> None:
    """Lines are printed above it, and at the end it is erased."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        console = Console(terminal)
        with console.busy("Preparing the image"):
            assert "Preparing the image (0 s)" in read_until(ours, "(0 s)")
            console.say("a line")
            assert f"{pulse.ERASE}a line\r\n" in read_until(ours, "a line\r\n")
            read_until(ours, "(0 s)")
        console.say("the end")
        assert read_until(ours, "the end").rstrip().endswith(f"{pulse.ERASE}the end")
    os.close(ours)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_pipe_and_a_dumb_terminal_get_lines_only(quick: None, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing moves where it would only leave rubbish."""
    monkeypatch.setenv("TERM", term)
    said = StringIO()
    if term == "dumb":
        monkeypatch.setattr(said, "isatty", lambda: True)
    console = Console(said)
    with console.busy("Preparing the image"):
        console.say("a line")
    assert said.getvalue() == "a line\n"
