"""The promises of the design, kept in a world where everything that can go wrong does.

TREADLE_SEEDS sets how many seeds are run, TREADLE_SEED picks one, TREADLE_STEPS the steps of each.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from treadle.model.task import FINAL

from .world import World

STEPS = int(os.environ.get("TREADLE_STEPS", "150"))
ONE = os.environ.get("TREADLE_SEED")
SEEDS = [int(ONE)] if ONE else range(int(os.environ.get("TREADLE_SEEDS", "200")))


def live(seed: int, folder: Path, steps: int) -> World:
    """Run a seed to its end. A failure says how to run it again."""
    world = World(seed, folder)
    try:
        for _ in range(steps):
            world.step()
        world.settle()
    except BaseException as error:
        error.add_note(f"Replay: TREADLE_SEED={seed} TREADLE_STEPS={steps} pytest tests/simulation")
        error.add_note(f"Steps: {' '.join(world.trace)}")
        raise
    finally:
        world.close()
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds(seed: int, quick_folder: Path) -> None:
    """No accepted task is lost or run by two attempts at once; each comes to one final state and one webhook."""
    live(seed, quick_folder, STEPS)


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
