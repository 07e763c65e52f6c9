"""What the demo shows: colours and moving bars on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

WIDE = 260  # columns in which whole output URLs fit


class Screen:
    """Numbers the steps and keeps one look for all of them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._steps = 0
        self._started = time.monotonic()

    def title(self, text: str) -> None:
        """A step begins."""
        self._steps += 1
        clock = f"  {time.monotonic() - self._started:.1f} s"
        self._print(Text.assemble((f"\n{self._steps}. {text}", "bold cyan"), (clock, "dim")))

    def command(self, text: str, mark: str = "$") -> None:
        """A command as one would type it."""
        self._print(Text.assemble((f"   {mark} ", "green"), (text, "bold")))

    def detail(self, text: str) -> None:
        """What a step has to say."""
        self._print(Text(f"   {text}", "dim"))

    def end(self, text: str) -> None:
        """All went well."""
        self._print(Text(f"\n{text}", "bold green"))

    def fail(self, text: str) -> None:
        """Something went wrong."""
        self._print(Text(f"\nThe demo failed: {text}", "bold red"))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Something is under way that cannot be counted."""
        if not self._console.is_terminal:
            self.detail(f"{text}…")
            yield
            return
        with self._console.status(f"[dim]{text}…[/dim]"):
            yield

    @contextmanager
    def progress(self, verb: str, total: int) -> Iterator[Callable[[str], None]]:
        """Something that is counted; call what this gives once for each thing done."""
        if not self._console.is_terminal:
            count = iter(range(1, total + 1))
            yield lambda what: self.detail(f"{verb} {next(count)}/{total}: {what}")
            return
        columns = (
            TextColumn("  "), TextColumn(verb), BarColumn(bar_width=30), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("[dim]{task.fields[what]}"),
        )  # fmt: skip
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(verb, total=total, what="")
            yield lambda what: bar.update(task, advance=1, what=what, refresh=True)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table whose last column is a URL, and whose second is an id."""
        if not self._console.is_terminal:
            widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
            for cells in (headers, *rows):
                self.detail("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
            return
        wide = self._console.width >= WIDE
        shown = rows if wide else [(name, f"…{id_[-8:]}", *rest) for name, id_, *rest in rows]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for column in list(zip(headers, *shown, strict=True))[:-1]:
            table.add_column(column[0], no_wrap=True, min_width=max(map(len, column)))
        table.add_column(headers[-1], no_wrap=True, overflow="ellipsis")
        for *cells, url in shown:
            short = url if wide else url.split("?")[0].partition("://")[2]
            table.add_row(*cells, Text(short, f"link {url} blue"))
        self._console.print(Padding(table, (0, 0, 0, 3)), soft_wrap=False)
        if not wide:
            self._print(Text.assemble("   one in full: ", (rows[0][-1], f"link {rows[0][-1]} blue")))

    def _print(self, text: Text) -> None:
        self._console.print(text)
