"""The simulation finds bugs: a few deliberate ones are planted each day, in processes of their own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from .mutants import MUTANTS, QUICK, QUICK_SEEDS, caught, of_the_day

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]  # two seconds each, on an idle machine
TODAY = datetime.now(UTC).toordinal()


@pytest.mark.parametrize("place", range(3))
def test_a_bug_of_the_day_is_caught(place: int) -> None:
    """Worlds in which no promise could break would prove nothing; `make sim-mutants` plants all bugs."""
    mutant = of_the_day(TODAY)[place]
    assert caught(mutant, QUICK_SEEDS), f"{mutant.name}: not found"


def test_each_quick_bug_has_its_day() -> None:
    """None is left out for ever."""
    assert {mutant.name for mutant in MUTANTS} >= set(QUICK)
    assert {mutant.name for day in range(len(QUICK)) for mutant in of_the_day(day)} == set(QUICK)
