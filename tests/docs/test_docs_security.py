"""SECURITY.md names what shows its claims, and that is there."""

from __future__ import annotations

import re

import pytest
from pages import ROOT

NAMED = re.findall(r"`((?:tests/[a-z/_]+/)?test_[a-z_]+\.py)`", (ROOT / "SECURITY.md").read_text())


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_a_test_that_is_named_is_there(name: str) -> None:
    """Those without a path are in tests/server/."""
    assert (ROOT / (name if "/" in name else f"tests/server/{name}")).is_file()


def test_every_defence_has_a_test() -> None:
    """Each row of its table names one at least."""
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| **")]
    assert len(rows) > 10
    assert not [row for row in rows if not re.search(r"test_[a-z_]+\.py", row.rpartition("|")[0].rpartition("|")[2])]
