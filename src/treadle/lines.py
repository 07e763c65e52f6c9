"""Lines for people: what server and agent tell of themselves, and where lines may be coloured."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import traceback
from typing import TextIO

STYLES = {"info": "32", "warning": "33", "error": "31"}  # SGR numbers of ECMA-48

# What would move the cursor, ring the bell or worse; colours, tabs and ends of lines are let through.
UNSAFE = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")


def tamed(text: str, stream: TextIO) -> str:
    """Text of others as it may go to this stream: a terminal gets nothing that would take control of it."""
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text) if stream.isatty() else text


def one_line(text: str) -> str:
    """Text of others as a part of a line: whatever is not printable is written as Python escapes it."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def coloured(stream: TextIO) -> bool:
    """Whether it is a terminal and neither https://no-color.org nor a dumb terminal is against it."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Logger:
    """Writes events to standard output, one line each: time, level, event, `name=value` in local time.

    A traceback follows, indented, as Python prints it without the values of variables: secrets may be among them. Its
    messages are anybody's words, but only our own lines begin at the margin.
    """

    def info(self, event: str, **values: object) -> None:
        self._write("info", event, values)

    def warning(self, event: str, *, trace: str = "", **values: object) -> None:
        """With a traceback that was made elsewhere."""
        self._write("warning", event, values, trace)

    def error(self, event: str, *, exc_info: BaseException | None = None, **values: object) -> None:
        """With the traceback of `exc_info`."""
        self._write("error", event, values, trace_of(exc_info))

    def exception(self, event: str, **values: object) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._write("error", event, values, trace_of(sys.exception()))

    @staticmethod
    def _write(level: str, event: str, values: dict[str, object], trace: str = "") -> None:
        told = " ".join(f"{name}={_shown(value)}" for name, value in values.items())
        mark = f"{level:9}"
        if coloured(sys.stdout):
            mark, event = f"\x1b[{STYLES[level]}m{mark}\x1b[0m", f"\x1b[1m{event}\x1b[0m"
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{mark}] {event}" + (f"  {told}" if told else "")
        with contextlib.suppress(OSError):  # a full disk, or nobody reads: what is told of must go on
            print("\n".join([line, *(f"    {one_line(part)}" for part in trace.splitlines())]), flush=True)


def trace_of(error: BaseException | None) -> str:
    """The traceback as Python prints it, "" without an exception."""
    return "".join(traceback.format_exception(error)).rstrip() if error else ""


def _shown(value: object) -> str:
    """As it is if it is one printable word, else as Python writes it: nobody forges a line with a name."""
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(" \"'=") else repr(text)
