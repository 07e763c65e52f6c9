"""Prints what happens: coloured on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from treadle.lines import coloured, one_line, tamed
from treadle.sdk.printed import PLAIN
from treadle.sdk.pulse import Pulse


class Console:
    """Lines for people. They go to stdout unless `stream` says otherwise (`--json` keeps stdout for the object)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._pulse: Pulse | None = None

    def step(self, text: str) -> None:
        """A step that begins or has ended: `=> Syncing files`."""
        self._write("=> ", text, "1;36", "1")

    def detail(self, text: str) -> None:
        """A line that belongs to the step before, such as one of a build's log."""
        self._write("   ", text, "", "2")

    def warn(self, text: str) -> None:
        """Something that may not be as the user expects."""
        self._write("! ", text, "1;33", "")

    def say(self, text: str) -> None:
        """A plain line, never wrapped or coloured, so that it can be copied."""
        text = _ended(tamed(text, self._out), self._out)
        if self._pulse is not None:
            self._pulse.say(text)
        else:
            print(text, file=self._out, flush=True)

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """While something takes its time: a terminal shows what, and for how long, below the lines."""
        if not _moving(self._out):
            yield
            return
        self._pulse = Pulse(self._out, text)
        try:
            yield
        finally:
            pulse, self._pulse = self._pulse, None
            pulse.stop()

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under headers, in columns."""
        rows = [[one_line(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        for cells in (headers, *rows):
            self.say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())

    @property
    def terminal(self) -> TextIO | None:
        """The terminal that the lines go to, if a bar can be drawn there; None for a file or a pipe."""
        return self._out if _moving(self._out) else None

    @property
    def _out(self) -> TextIO:
        return self._stream or sys.stdout

    def _write(self, mark: str, text: str, mark_style: str, style: str) -> None:
        """A line whose parts have these styles on a terminal (numbers of ECMA-48's SGR; `put` prints one a task)."""
        if coloured(self._out):
            mark, text = (f"\x1b[{numbers}m{part}\x1b[0m" for numbers, part in ((mark_style, mark), (style, text)))
        self.say(f"{mark}{text}")


def _ended(text: str, out: TextIO) -> str:
    """The text, with an end to what it may have set on a terminal: colours are let through."""
    return f"{text}{PLAIN}" if out.isatty() and "\x1b" in text and not text.endswith(PLAIN) else text


def _moving(out: TextIO) -> bool:
    """Whether a line may be drawn over and over."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


def amount(size: int) -> str:
    """A number of bytes for people."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5 or unit == "GB":
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    raise AssertionError("unreachable: GB is the last unit")
