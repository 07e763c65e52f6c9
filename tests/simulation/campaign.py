"""Many seeds, each a world of its own: `make sim`. A failing one is told, shrunk, and can be run again exactly.

    make sim                        10 000 seeds of 150 steps, on all processors
    make sim SECONDS=60             as many as that time allows
    make sim SEED=17 STEPS=1-9,40   one seed, these steps alone (9 is the first nine, 9-9 the ninth)
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .world import World

MEMORY = Path("/dev/shm")  # where fsync costs nothing
SHRINK_SECONDS = 60.0
NONE = "none"  # no step at all: the world is made and comes to its end
CHUNK = 20  # seeds a process takes at once


class Failure(NamedTuple):
    """A seed that broke a promise. `what` names the place and the promise, without what differs from run to run."""

    seed: int
    steps: tuple[int, ...]
    what: str
    told: str
    trace: tuple[str, ...]  # what happened, as `regressions` keeps it

    @property
    def entry(self) -> str:
        """For the table in `regressions`."""
        return f'Regression({self.seed}, "{" ".join(self.trace)}", "{self.what}")'

    @property
    def command(self) -> str:
        return f"make sim SEED={self.seed} STEPS={spans(self.steps)}"


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="treadle-sim-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def live(seed: int, path: Path, steps: Sequence[int], script: Mapping[int, str] | None = None) -> World:
    """Run a seed to its end. A failure says how to run it again."""
    world = World(seed, path)
    try:
        world.live(steps, script)
    except BaseException as error:
        error.add_note(f"Replay: make sim SEED={seed} STEPS={spans(steps)}")
        error.add_note(f"Steps: {' '.join(world.trace)}")
        error.trace = tuple(world.trace)  # type: ignore[attr-defined]
        raise
    finally:
        world.close()
    return world


def trial(seed: int, steps: Sequence[int]) -> Failure | None:
    """Run a seed; how it failed, if it did."""
    with folder() as path:
        try:
            live(seed, path, steps)
        except Exception as error:  # noqa: BLE001 - whatever a promise or the engine raises is what is looked for
            place = getattr(error, "promise", "") or traceback.extract_tb(error.__traceback__)[-1].name
            what = f"{type(error).__name__} in {place}"
            trace = getattr(error, "trace", ())  # none where the world could not even be made
            return Failure(seed, tuple(steps), what, "".join(traceback.format_exception(error)), trace)
    return None


def shrink(failure: Failure, seconds: float = SHRINK_SECONDS) -> Failure:
    """Leave out steps, larger parts first, while the same thing fails (delta debugging, Zeller and Hildebrandt 2002)."""
    deadline = time.monotonic() + seconds
    part = max(len(failure.steps) // 2, 1)
    while part and time.monotonic() < deadline:
        start, smaller = 0, False
        while start < len(failure.steps) and time.monotonic() < deadline:
            fewer = failure.steps[:start] + failure.steps[start + part :]
            again = trial(failure.seed, fewer)
            if again is not None and again.what == failure.what:
                failure, smaller = again, True
            else:
                start += part
        part = part if smaller and part == 1 else part // 2
    return failure


def spans(steps: Sequence[int]) -> str:
    """`1-3,7` for 1, 2, 3, 7; `9-9` for 9 alone, since `9` means the first nine; `none` for none."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and parts[-1][1] == step - 1:
            parts[-1][1] = step
        else:
            parts.append([step, step])
    text = ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)
    return f"{text}-{text}" if text.isdigit() else text or NONE


def steps_of(text: str) -> tuple[int, ...]:
    """The other way round; a number alone is how many."""
    if text.isdigit():
        return tuple(range(1, int(text) + 1))
    if text == NONE:
        return ()
    steps: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        steps.extend(range(int(first), int(last or first) + 1))
    return tuple(steps)


def _some(asked: tuple[Sequence[int], tuple[int, ...]]) -> list[Failure | None]:
    seeds, steps = asked
    return [trial(seed, steps) for seed in seeds]


def campaign(seeds: Sequence[int], steps: tuple[int, ...], seconds: float) -> tuple[int, Failure | None]:
    """How many seeds were run, and the first that failed."""
    chunks = [(seeds[start : start + CHUNK], steps) for start in range(0, len(seeds), CHUNK)]
    began, done = time.monotonic(), 0
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        for results in pool.imap(_some, chunks):
            done += len(results)
            passed = time.monotonic() - began
            _tell(f"{done:,} of {len(seeds):,} seeds, {done / passed:,.0f} a second")
            failed = next((result for result in results if result is not None), None)
            if failed is not None or passed > seconds:
                return done, failed
    return done, None


def _tell(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--steps", type=steps_of, default=steps_of("150"), help="how many, or which: 1-9,40")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more seeds after that time")
    parser.add_argument("--no-shrink", action="store_true")
    asked = parser.parse_args()
    seeds = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    began = time.monotonic()
    done, failed = campaign(seeds, asked.steps, asked.seconds)
    _tell("")
    print(f"{done:,} seeds of {len(asked.steps)} steps in {time.monotonic() - began:.0f} s")
    if failed is None:
        return 0
    if not asked.no_shrink:
        print(f"seed {failed.seed} failed ({failed.what}); leaving out steps …", flush=True)
        failed = shrink(failed)
    print(f"{failed.told}\nOnce mended, keep it in tests/simulation/regressions.py: {failed.entry}\n{failed.what}")
    print(f"Run it again: {failed.command}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
