"""How commands show what was printed: the bare lines, with times if asked, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec
import typer

from treadle.cli.output import json_text, print_json
from treadle.model.api import LogLine, LogPage
from treadle.sdk.printed import coloured, shown

PAGE = 10_000

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
            print(coloured(f"=> attempt {attempt}", "treadle"))
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
