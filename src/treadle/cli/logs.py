"""How commands show what was printed: the bare lines, with times if asked, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from treadle.cli.output import json_text, print_json
from treadle.lines import tamed
from treadle.model.api import LogLine, LogPage

PAGE = 10_000
COLOURS = {"stderr": "\x1b[31m", "treadle": "\x1b[2m"}
PLAIN = "\x1b[0m"

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until the end.")]
Timestamps = Annotated[bool, typer.Option("--timestamps", "-t", help="Show when, and to which stream.")]


def show(
    name: str,
    read: Callable[..., LogPage],
    watch: Callable[[str], Iterator[LogLine]],
    *,
    follow: bool,
    timestamps: bool,
    as_json: bool,
) -> None:
    """Print the log of this name: `read` page by page, or with `follow` as `watch` yields it.

    JSON is a list, or one object a line when it is followed.
    """
    lines = watch(name) if follow else _pages(name, read)
    if as_json and not follow:
        print_json(list(lines))
        return
    attempt = 1
    for line in lines:
        if as_json:
            print(json_text(msgspec.json.encode(line)), flush=True)
            continue
        if line.task_id == name and line.attempt > attempt:
            attempt = line.attempt
            print(_coloured(f"=> attempt {attempt}", "treadle"))
        print(shown(line, timestamps=timestamps), flush=follow)


def _pages(name: str, read: Callable[..., LogPage]) -> Iterator[LogLine]:
    """All lines there are now."""
    cursor = ""
    while True:
        page = read(name, cursor, PAGE)
        yield from page.data
        if len(page.data) < PAGE:
            return
        cursor = page.next


def shown(line: LogLine, *, timestamps: bool) -> str:
    """A line as people see it. A terminal gets colours by stream, and nothing that would take control of it."""
    mark = f"{clock(line)}  {line.stream:<7} " if timestamps else "treadle: " if line.stream == "treadle" else ""
    return _coloured(mark + line.text, line.stream)


def clock(line: LogLine) -> str:
    """When a line was printed, in local time to the millisecond."""
    return datetime.fromisoformat(line.at).astimezone().isoformat(" ", "milliseconds")[:23]


def _coloured(text: str, stream: str) -> str:
    if not sys.stdout.isatty():
        return text
    text = tamed(text.replace("\n", "\N{REPLACEMENT CHARACTER}"), sys.stdout)
    return f"{COLOURS[stream]}{text}{PLAIN}" if stream in COLOURS else f"{text}{PLAIN}"
