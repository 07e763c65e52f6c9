"""How a line that a container has printed is shown to people."""

from __future__ import annotations

import sys
from datetime import datetime

from treadle.lines import tamed
from treadle.model.api import LogLine

COLOURS = {"stderr": "\x1b[31m", "treadle": "\x1b[2m"}
PLAIN = "\x1b[0m"


def shown(line: LogLine, *, timestamps: bool) -> str:
    """A line as people see it. A terminal gets colours by stream, and nothing that would take control of it."""
    mark = f"{clock(line)}  {line.stream:<7} " if timestamps else "treadle: " if line.stream == "treadle" else ""
    return coloured(mark + line.text, line.stream)


def clock(line: LogLine) -> str:
    """When a line was printed, in local time to the millisecond."""
    return datetime.fromisoformat(line.at).astimezone().isoformat(" ", "milliseconds")[:23]


def coloured(text: str, stream: str) -> str:
    """The text in the colour of its stream, if it goes to a terminal."""
    if not sys.stdout.isatty():
        return text
    text = tamed(text.replace("\n", "\N{REPLACEMENT CHARACTER}"), sys.stdout)
    return f"{COLOURS[stream]}{text}{PLAIN}" if stream in COLOURS else f"{text}{PLAIN}"
