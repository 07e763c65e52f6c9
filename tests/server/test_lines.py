"""The log of server and agent: one line an event, which nothing in it can break."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest

from treadle.lines import Logger

WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def test_an_event_is_one_line_with_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, event, then `name=value`."""
    Logger().info("container started", container="taskqueue-1", pid=42)
    Logger().warning("runner refused")
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(WHEN + r"\[info     \] container started  container=taskqueue-1 pid=42", first)
    assert re.fullmatch(WHEN + r"\[warning  \] runner refused", second)


@pytest.mark.parametrize("value", ["", "two words", "a\n2026-01-01 00:00:00 [error    ] forged", "a=b", "\x1b[2J", 'say "hi"'])
def test_a_value_cannot_forge_a_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not one printable word is written as Python writes it."""
    Logger().error("image could not be built", reason=value)
    assert capsys.readouterr().out.endswith(f"reason={value!r}\n")


def test_a_traceback_shows_no_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """Tokens and secrets are local variables somewhere."""
    token = "-".join(("very", "secret"))
    try:
        raise KeyError(len(token))
    except KeyError as error:
        Logger().exception("request failed", path="/v2")
        Logger().error("request failed", exc_info=error)
    said = capsys.readouterr().out
    assert said.count("Traceback (most recent call last):") == said.count("KeyError: 11") == 2
    assert "very-secret" not in said


def test_a_traceback_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Its messages are user text: none of its lines begins where ours do, and none moves the cursor."""
    forged = "no\n2026-01-01 00:00:00 [info     ] all is well\r\x1b[2J\x9b2J\u2028x"
    try:
        raise ValueError(forged)
    except ValueError:
        Logger().exception("request failed")
    Logger().warning("handler could not be loaded", trace=f"Traceback\nValueError: {forged}")
    lines = capsys.readouterr().out.split("\n")
    assert [bool(re.match(WHEN, line)) for line in lines if not line.startswith("    ")] == [True, True, False]
    assert all(line.isprintable() for line in lines)
    assert "    ValueError: no" in lines


def test_a_terminal_shows_the_level_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the event in bold."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        Logger().error("a change was not written")
        said = screen.read(1000).decode()
    assert "[\x1b[31merror    \x1b[0m] \x1b[1ma change was not written\x1b[0m" in said


def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tells of trouble goes on, with a full disk too."""
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        Logger().error("a change was not written", verb="finish")
        with contextlib.suppress(OSError):
            full.close()  # it would try again
