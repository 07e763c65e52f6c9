"""Prints what happens: coloured on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO


class Console:
    """Lines for people. They go to stdout unless `stream` says otherwise (`--json` keeps stdout for the object)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def step(self, text: str) -> None:
        """A step that begins or has ended: `=> Syncing files`."""
        self._write("=> ", text, "bold cyan", "bold")

    def detail(self, text: str) -> None:
        """A line that belongs to the step before, such as one of a build's log."""
        self._write("   ", text, "", "dim")

    def warn(self, text: str) -> None:
        """Something that may not be as the user expects."""
        self._write("! ", text, "bold yellow", "")

    def say(self, text: str) -> None:
        """A plain line, never wrapped or coloured, so that it can be copied."""
        print(text, file=self._out, flush=True)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under headers, in columns."""
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        for cells in (headers, *rows):
            self.say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())

    @property
    def _out(self) -> TextIO:
        return self._stream or sys.stdout

    def _write(self, mark: str, text: str, mark_style: str, style: str) -> None:
        if not self._out.isatty():
            self.say(f"{mark}{text}")
            return
        from rich.console import Console as Rich  # noqa: PLC0415 - costs 50 ms and only a terminal needs it
        from rich.text import Text  # noqa: PLC0415

        Rich(file=self._out, soft_wrap=True).print(Text.assemble((mark, mark_style), (text, style)))


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
