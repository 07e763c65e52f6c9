"""Writes what `--json FILE` holds into docs/benchmarks.md: `python -m benchmarks.report FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, gather
from benchmarks.table import HEADERS, PEER_HEADERS, cells, markdown, peer_cells

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- {} begin -->", "<!-- {} end -->"


def results(said: dict[str, Any]) -> str:
    """The part of the page that tells Treadle's own figures."""
    machine = said["machine"]
    rows = gather([[Figure(**figure) for figure in run] for run in said["runs"]])
    short = " `--quick`" if said["quick"] else ""
    lines = [
        f"Measured {said['at']}, {len(said['runs'])} runs{short}, commit {machine['commit']}: {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, SQLite {machine['sqlite']}. Data on {machine['file_system']}: 4 KiB and fsync "
        f"takes {machine['fsync_ms_p50']} ms (p50), {machine['fsync_ms_p99']} ms (p99). "
        f"Others kept {median(said['busy']):.0%} of the machine busy (median; at most {max(said['busy']):.0%}), "
        f"as seen just before each measure.",
        *_remark(said),
        "",
        markdown(HEADERS, [cells(row) for row in rows]),
        *(f"\nNot measured: {note}." for note in said["notes"]),
    ]
    return "\n".join(lines)


def peers(said: dict[str, Any]) -> str:
    """The part of the page that compares."""
    rows, found = said["peers"]["rows"], said["peers"]
    began = (
        f"Measured {said['at']}, commit {said['machine']['commit']}, {len(rows[0]['A'])} runs in turn; medians. "
        f"Python {found['python']} for all, Redis {found['redis']}. "
        f"In brackets: Treadle's rate in multiples of theirs."
    )
    return "\n".join([began, *_remark(said), "", markdown(PEER_HEADERS, [peer_cells(row, rows[0]) for row in rows])])


def _remark(said: dict[str, Any]) -> list[str]:
    return ["", said["remark"]] if said.get("remark") else []


def fill(page: str, name: str, text: str) -> str:
    """The page with the text between the markers of this name."""
    begin, end = BEGIN.format(name), END.format(name)
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{PAGE} has no {begin} … {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main() -> None:
    said = json.loads(Path(sys.argv[1]).read_text())
    page = PAGE.read_text()
    if said["runs"]:
        page = fill(page, "results", results(said))
    if said.get("peers"):
        page = fill(page, "peers", peers(said))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
