"""The promises of the design, kept in a world where everything that can go wrong does (`make sim` runs many more)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies

from treadle.model.task import FINAL
from treadle.rules import retry

from .campaign import folder, live, shrink, spans, steps_of, trial
from .ledger import Broken
from .mutants import MUTANTS, Mutant, broken
from .regressions import REGRESSIONS, Regression

STEPS = steps_of("150")
SEEDS = range(200)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds(seed: int, quick_folder: Path) -> None:
    """No accepted task is lost or run by two attempts at once; each comes to one final state and one webhook."""
    live(seed, quick_folder, STEPS)


@pytest.mark.parametrize("kept", REGRESSIONS, ids=lambda kept: f"{kept.seed}")
def test_what_was_broken_once_holds(kept: Regression, quick_folder: Path) -> None:
    """Each world in which a promise was broken, step by step."""
    live(kept.seed, quick_folder, tuple(kept.script), kept.script)


def test_a_seed_replays_exactly(quick_folder: Path) -> None:
    """The same seed is the same world, step by step and second by second."""
    worlds = []
    for name in ("one", "two"):
        (quick_folder / name).mkdir()
        worlds.append(live(4, quick_folder / name, STEPS))
    first, second = worlds
    assert (first.trace, first.now, first.ledger.seen()) == (second.trace, second.now, second.ledger.seen())


def test_the_world_is_lively(quick_folder: Path) -> None:
    """The promises are not kept for want of trials: tasks come to every end, and many are tried more than once."""
    rows = []
    for seed in range(40):
        (quick_folder / str(seed)).mkdir()
        rows += live(seed, quick_folder / str(seed), STEPS).ledger.seen()
    assert {row.status for row in rows} == FINAL
    assert sum(row.attempts > 1 for row in rows) > 10


def test_a_failing_seed_shrinks_to_the_few_steps_that_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bug planted, a seed fails; what is left of its steps still fails in the same way, and is told to be run."""
    allowed = retry.allowed
    monkeypatch.setattr(retry, "allowed", lambda kind, attempts, retries, **also: allowed(kind, attempts, retries + 1, **also))
    failed = next(failure for seed in range(100) if (failure := trial(seed, STEPS)) is not None)
    small = shrink(failed, seconds=20)
    assert small.what == failed.what == "Broken in retries are kept to"
    assert len(small.steps) < len(STEPS) / 3
    again = trial(small.seed, steps_of(small.command.partition("STEPS=")[2]))
    assert again is not None and again.what == small.what
    kept = Regression(small.seed, " ".join(small.trace), small.what)
    with folder() as path, pytest.raises(Broken):
        live(kept.seed, path, tuple(kept.script), kept.script)


@given(strategies.sets(strategies.integers(1, 300)))
def test_steps_are_told_in_spans(chosen: set[int]) -> None:
    """What is printed is what the command takes, and a shell passes on."""
    steps = tuple(sorted(chosen))
    assert steps_of(spans(steps)) == steps
    assert spans(steps).replace(",", "").replace("-", "").isalnum()


@pytest.mark.parametrize(("text", "steps"), [("3", (1, 2, 3)), ("3-3", (3,)), ("1,3-4", (1, 3, 4)), ("none", ())])
def test_steps_are_asked_for_by_number_or_by_name(text: str, steps: tuple[int, ...]) -> None:
    """A number alone is how many."""
    assert steps_of(text) == steps


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_deliberate_bug_still_fits_the_code(mutant: Mutant) -> None:
    """`make sim-mutants` breaks the code that is there; a bug that cannot be planted any more would prove nothing."""
    compile(broken(mutant), mutant.file, "exec")
