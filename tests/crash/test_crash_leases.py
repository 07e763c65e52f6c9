"""Short rounds of crash tests in which somebody is away for longer than a lease, each of which takes a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from .short import one_round


@pytest.mark.e2e
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["frozen", "parted"])
def test_no_promise_is_broken_by_whoever_comes_back_late(tmp_path: Path, kind: str) -> None:
    """Where runners are stopped or cut off past their lease, nothing runs twice at once, and nothing late counts."""
    one_round(tmp_path, kind)
