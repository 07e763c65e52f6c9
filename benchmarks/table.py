"""The tables that the benchmarks print: in colours on a terminal, plain in a pipe; and as Markdown for the page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Row, shown

HEADERS = ("measure", "median", "unit", "runs", "reach", "met")
PEER_HEADERS = (
    "tool", "settings", "ack survives kill -9 / power cut", "A enqueue/s", "A bulk/s", "B drain/s", "C end to end/s",
    "D pickup ms p50 / p99", "R result ms p50 / p99", "E workers PSS MB", "F cold start s",
)  # fmt: skip
STYLES = {"yes": "green", "no": "bold red"}


def cells(row: Row) -> tuple[str, ...]:
    """A figure as the table shows it."""
    runs = " ".join(shown(value) for value in row.runs)
    return row.name, shown(row.median), row.unit, runs, str(row.reach or ""), row.verdict


def peer_cells(row: dict[str, Any], own: dict[str, Any]) -> tuple[str, ...]:
    """A peer as the table shows it: medians, and how many times Treadle's figure is of it."""

    def rate(key: str) -> str:
        if not row[key]:
            return "–"
        mine = "" if row is own or not own[key] else f" ({median(own[key]) / median(row[key]):.2g} ×)"
        return shown(median(row[key])) + mine

    def spread(key: str) -> str:
        if not row[key]:
            return "–"
        return " / ".join(shown(median(part)) for part in zip(*row[key], strict=True))

    def one(key: str) -> str:
        return shown(median(row[key])) if row[key] else "–"

    name = f"{row['peer']} {row['version']}".strip() + (" (incomplete)" if row["incomplete"] else "")
    rates = [rate(key) for key in ("A", "bulk", "B", "C")]
    return (name, row["settings"], row["durable"], *rates, spread("D"), spread("R"), one("E"), one("F"))


def print_rows(rows: Sequence[Row], machine: dict[str, Any], notes: Sequence[str]) -> None:
    """The table of all measures, with what it was measured on and what could not be measured."""
    out, table = _out(200), _table("", HEADERS)
    out.print(", ".join(f"{key} {value}" for key, value in machine.items()), style="dim", highlight=False)
    for row in rows:
        table.add_row(*cells(row), style=STYLES.get(row.verdict))
    out.print(table)
    for note in notes:
        out.print(f"not measured: {note}", highlight=False)


def print_peers(peers: Sequence[dict[str, Any]]) -> None:
    """The table of the peers; in brackets how many times as fast Treadle is."""
    out, table = _out(260), _table("Peers, in turn; in brackets: Treadle's rate in multiples of theirs", PEER_HEADERS)
    for row in peers:
        table.add_row(*peer_cells(row, peers[0]))
    out.print(table)


def _out(width: int) -> Console:
    """Where tables go; a pipe has no width of its own."""
    out = Console()
    return out if out.is_terminal else Console(width=width)


def _table(title: str, headers: Sequence[str]) -> Table:
    table = Table(title=title or None, box=box.ROUNDED if Console().is_terminal else box.MARKDOWN)
    for header in headers:
        table.add_column(header, justify="right" if header == "median" else "left", no_wrap=header == "measure")
    return table


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
