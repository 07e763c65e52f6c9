"""Reads the documentation for its tests: pages, code blocks, table rows, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: its language, the rest of its info line, its text, and where it is."""

    language: str
    info: str
    text: str
    where: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        language, _, info = match[1].strip().partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        yield Block(language, info, match[2], f"{page.relative_to(ROOT)}:{line}")


def part(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    _, found, rest = page.read_text().partition(f"\n{heading}\n")
    assert found, f"{page.name} has no heading {heading!r}"
    level = len(heading) - len(heading.lstrip("#"))
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the table rows under a heading."""
    lines = [line.strip() for line in part(page, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def rows(page: Path, heading: str) -> dict[str, list[str]]:
    """The table rows under a heading, by each word that stands in backticks in their first cell."""
    return {name: cells for cells in table(page, heading) for name in re.findall(r"`([^`]+)`", cells[0])}


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    found = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}
