"""Short rounds of crash tests; `make crash` runs long ones (docs/reliability.md). test_crash_leases.py has the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import disk
from .short import one_round


@pytest.mark.e2e
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["kills", "links", "power"])
def test_no_promise_is_broken_by_crashes(tmp_path: Path, kind: str) -> None:
    """Under kills, bad links and cut power, nothing accepted is lost, runs twice at once, or is told wrongly."""
    one_round(tmp_path, kind)


@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_no_promise_is_broken_by_a_full_disk(tmp_path: Path) -> None:
    """Nor where the disk is full again and again."""
    if trouble := disk.trouble():
        pytest.skip(trouble)
    one_round(tmp_path, "full")
