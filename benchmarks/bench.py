"""Measures Treadle: `python -m benchmarks.bench` prints one table (docs/benchmarks.md says what each row means)."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import (
    measures_accept,
    measures_crowd,
    measures_drain,
    measures_idle,
    measures_latency,
    measures_size,
    measures_start,
)
from benchmarks.figures import Figure, gather
from benchmarks.machine import MEMORY_FILE_SYSTEMS, busy, describe, file_system
from benchmarks.marks import MeasureFailed
from benchmarks.place import Place
from benchmarks.table import print_peers, print_rows
from benchmarks.versus import find_harness, measure_peers

DISK = Path("/var/tmp")  # noqa: S108 - on a disk, as data folders are; /tmp is often memory
MEMORY = Path("/dev/shm")  # noqa: S108 - where handlers leave marks, so that these cost next to nothing


class Places:
    """The servers of a run, each started when a measure first asks for it, all of them stopped at the end."""

    def __init__(self, folder: Path, notes: Path) -> None:
        self._folder, self._notes = folder, notes
        self._kept: dict[str, Place] = {}
        self._seeded: list[str] = []

    def get(self, name: str) -> Place:
        """The place of this name."""
        if name not in self._kept:
            place = Place(self._folder / name, self._notes / name)
            self._kept[name] = place
            place.up()
        return self._kept[name]

    def full(self) -> tuple[Place, list[str]]:
        """The place whose store is full, and some ids of finished tasks in it."""
        place = self.get("full")
        if not self._seeded:
            self._seeded = measures_size.fill(place, measures_size.FINISHED, measures_size.WAITING, 3600)
        return place, self._seeded

    @contextlib.contextmanager
    def once(self, name: str) -> Iterator[Place]:
        """A place for one measure alone."""
        try:
            yield self.get(name)
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Close the place of this name, if there is one."""
        if name in self._kept:
            self._kept.pop(name).close()

    def close(self) -> None:
        for place in self._kept.values():
            place.close()


def measures(places: Places, *, quick: bool) -> dict[str, Callable[[], Iterator[Figure]]]:
    """Every measure by the name that `--only` takes, in the order in which they are taken."""
    seconds, tasks, samples, few = (1.0, 4000, 50, 3) if quick else (3.0, 20_000, 200, 10)
    main = functools.partial(places.get, "main")

    def size() -> Iterator[Figure]:
        full, seeded = places.full()
        yield from measures_size.size(places.get("empty"), full, seeded, seconds / 2, tasks // 2)

    def idle() -> Iterator[Figure]:
        with places.once("idle") as place:
            yield from measures_idle.idle(place, 5 if quick else 30)

    def pruning() -> Iterator[Figure]:
        with places.once("old") as place:
            yield from measures_size.pruning(place, 20_000 if quick else 100_000, 20 * seconds)

    def crowd() -> Iterator[Figure]:
        many = (500, 5_000) if quick else (measures_crowd.LISTENERS, measures_crowd.WAITING)
        with places.once("crowd") as place:
            yield from measures_crowd.crowd(place, samples, *many)

    return {
        "accept": lambda: measures_accept.accept(main(), seconds),
        "batch": lambda: measures_accept.batch(main(), seconds),
        "drain": lambda: measures_drain.drain(main(), tasks),
        "latency": lambda: measures_latency.latency(main(), samples),
        "put": lambda: measures_drain.put(main(), tasks // 2),
        "put_many": lambda: measures_drain.put_many(main(), tasks * 2),
        "cold": lambda: measures_start.cold(main(), few),
        "cold_numpy": lambda: measures_start.cold_numpy(main(), few),
        "crash": lambda: measures_start.crash(main(), few),
        "idle": idle,
        "size": size,
        "pruning": pruning,
        "crowd": crowd,
    }


def take(name: str, measure: Callable[[], Iterator[Figure]], notes: list[str], noise: list[float]) -> list[Figure]:
    """The figures of one measure; what cannot be taken is noted, and how busy others kept the machine before it."""
    noise.append(busy())
    began = time.monotonic()
    figures: list[Figure] = []
    try:
        for figure in measure():
            figures.append(figure)
    except (MeasureFailed, OSError) as error:
        notes.append(f"{name}: {error}")
        print(f"  ! {notes[-1]}", file=sys.stderr)
    took = time.monotonic() - began
    print(f"  {name}: {took:.0f} s, others kept {noise[-1]:.0%} busy", file=sys.stderr, flush=True)
    return figures


def measure_all(asked: argparse.Namespace, folder: Path, notes_folder: Path) -> dict[str, Any]:
    """All runs: each takes every measure once, so that what disturbs the machine for a while hits few of one kind."""
    places = Places(folder, notes_folder)
    notes: list[str] = []
    noise: list[float] = []
    runs: list[list[Figure]] = []
    found = measures(places, quick=asked.quick)
    only = asked.only.split(",") if asked.only else list(found)
    try:
        for number in range(asked.runs if only != ["none"] else 0):
            print(f"run {number + 1} of {asked.runs}", file=sys.stderr, flush=True)
            runs.append([figure for name in only for figure in take(name, found[name], notes, noise)])
            places.drop("main")  # the next run begins with an empty store too
    finally:
        places.close()
    figures = [[figure._asdict() for figure in run] for run in runs]
    return {"runs": figures, "notes": sorted(set(notes)), "busy": noise}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often everything is measured [3]")
    parser.add_argument("--only", default="", help="measures, comma-separated; `none` for peers alone")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: to see that it works")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--peers", default="", help='peers to measure beside, such as "huey dramatiq celery"')
    parser.add_argument("--folder", type=Path, default=DISK, help=f"where data folders are made [{DISK}]")
    parser.add_argument("--remark", default="", help="what a reader of the figures has to know")
    asked = parser.parse_args()
    known = {*measures(Places(DISK, MEMORY), quick=True), "none"}
    if unknown := set(filter(None, asked.only.split(","))) - known:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    if file_system(asked.folder) in MEMORY_FILE_SYSTEMS:
        parser.error(f"{asked.folder} is in memory: fsync costs nothing there. Name a folder on a disk (--folder).")
    if asked.peers:
        try:
            find_harness()
        except MeasureFailed as error:
            parser.error(str(error))
    return asked


def main() -> None:
    asked = parse()
    folder = Path(tempfile.mkdtemp(prefix="treadle-bench-", dir=asked.folder))
    notes = Path(tempfile.mkdtemp(prefix="treadle-bench-", dir=MEMORY if MEMORY.is_dir() else folder))
    try:
        said = {"at": time.strftime("%Y-%m-%d %H:%M"), "machine": describe(folder), "quick": asked.quick}
        said["remark"] = asked.remark
        said |= measure_all(asked, folder, notes)
        if asked.peers:
            said["peers"] = measure_peers(asked.peers.split(), folder, asked.runs, quick=asked.quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(notes, ignore_errors=True)
    if asked.json:
        asked.json.write_text(json.dumps(said, indent=1))
    print_rows(gather([[Figure(**figure) for figure in run] for run in said["runs"]]), said["machine"], said["notes"])
    if asked.peers:
        print_peers(said["peers"]["rows"])


if __name__ == "__main__":
    main()
