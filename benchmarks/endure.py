"""Whether a server stays as it is: 80 % of what it can take, for half an hour, while processes are killed at random.

`python -m benchmarks.endure` prints a line every ten seconds and a verdict at the end (docs/reliability.md).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from benchmarks.bench import DISK, MEMORY
from benchmarks.load import run_load
from benchmarks.marks import MeasureFailed
from benchmarks.measures_accept import ONE
from benchmarks.measures_idle import pss, roles
from benchmarks.place import UNFINISHED, Place, Queue
from benchmarks.steady import ONE_OF
from treadle.model.errors import TreadleError

SHARE = 0.8  # of the measured maximum
WINDOW = 10  # seconds
KEPT = 40  # seconds until an old task is forgotten: the store has to stop growing
WALK = 10  # seconds from one walk of the server through its old tasks to the next
KILLS = 5.0  # seconds from kill to kill, on average
EARLY = 0.2  # of the time, in which the server itself is killed too; after it, it has to stay as it is
DAY = 86400
END_SECONDS = 120  # after the last request, until all is done
VICTIMS = ("runner", "template", "child", "zygote")
# By how much the median of the last fifth may exceed that of the second: as a factor, and as a number.
FLAT = {
    "p50 ms": (1.5, 1.0), "p99 ms": (1.5, 5.0), "server MB": (1.1, 5.0), "containers MB": (1.2, 10.0),
    "files": (1.0, 20), "threads": (1.0, 2), "store MB": (1.15, 20.0), "processes": (1.0, 3),
}  # fmt: skip
MOST = {"p50 ms": 100.0, "p99 ms": 2000.0}  # of the last fifth: a server that lags behind for good is level, too
TAKEN = 0.999  # of the requests, in all windows but those in which the server was killed
LOOKED = 0.9  # of the windows: one in which the server starts gives no figures
PAGE = 100  # tasks looked after with one request


class Sample(NamedTuple):
    """One window: what came of the requests, and what the server was like at its end."""

    at: float
    counts: dict[str, int]
    figures: dict[str, float]
    kills: dict[str, int]


class Campaign:
    """The place, what kills in it, and what was seen."""

    def __init__(self, place: Place, minutes: float, seed: int) -> None:
        self.place, self.seconds = place, minutes * 60
        self.chance = random.Random(seed)  # noqa: S311 - a game, not a secret
        self.kills: dict[str, int] = {}
        self.samples: list[Sample] = []
        self.counts: list[tuple[int, dict[str, int]]] = []  # of each window; how often the server was killed by then
        self.followed: list[str] = []  # tasks that were accepted, and have not ended as far as is known
        self.ends: Counter[str] = Counter()
        self.began = time.monotonic()

    def run(self) -> None:
        queue = self.place.queue("noop")
        self.place.warm(queue)
        rate = SHARE * self._maximum(queue)
        print(f"{rate:.0f} tasks/s for {self.seconds / 60:g} minutes, a kill every {KILLS:g} s", flush=True)
        with self._load(queue, rate) as lines:
            self.began = time.monotonic()
            next_kill = self.began + KILLS
            for line in lines:
                self._look(json.loads(line))
                while time.monotonic() > next_kill:
                    next_kill += self.chance.uniform(0, 2 * KILLS)
                    self._kill()

    def _maximum(self, queue: Queue) -> float:
        """Tasks a second that are accepted and done at 64 connections while as many old ones are forgotten."""
        rate = 5_000.0
        for seconds in (5, KEPT + WALK, 60):  # a guess; until forgetting is in full swing; and the measure
            count = int(rate * seconds)
            load = run_load(self.place, queue.path, ONE, count, 64)
            rate = count / (self.place.finish(queue, load.last_ids) - load.began)
        return rate

    @contextlib.contextmanager
    def _load(self, queue: Queue, rate: float) -> Iterator[Iterator[bytes]]:
        place = self.place
        asked = {"host": place.host, "port": place.port, "path": queue.path, "token": place.token, "body": "{}"}
        asked |= {"rate": rate, "connections": 64, "seconds": self.seconds, "window": WINDOW}
        command = [sys.executable, "-m", "benchmarks.steady", json.dumps(asked)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                yield iter(process.stdout)
            finally:
                process.kill()

    def _kill(self) -> None:
        """kill -9 of one process: the server while it is early, else something of its containers."""
        age = time.monotonic() - self.began
        if self.kills.get("server", 0) < 2 and age < EARLY * self.seconds and age > WINDOW:
            self._note("server")
            os.kill(self.place.pid, signal.SIGKILL)
            self.place.up(self.place.port)
            return
        victim = self.chance.choice(VICTIMS)
        with contextlib.suppress(psutil.NoSuchProcess):  # one ends by itself while we look
            there = roles(self.place, [one for one in self.place.processes() if one.status() != psutil.STATUS_ZOMBIE])
            found = [process for process, role in there if role.startswith(victim)]
            if found:
                self.chance.choice(found).kill()
                self._note(victim)

    def _note(self, victim: str) -> None:
        self.kills[victim] = self.kills.get(victim, 0) + 1

    def _look(self, said: dict[str, Any]) -> None:
        self.counts.append((self.kills.get("server", 0), said["counts"]))
        with contextlib.suppress(TreadleError):  # it starts: they are looked after in the next window
            self._follow()
        self.followed += said["ids"]  # these, too
        with contextlib.suppress(psutil.NoSuchProcess, MeasureFailed, OSError):
            figures = {"p50 ms": said["p50"], "p99 ms": said["p99"]} | self._figures()
            sample = Sample(time.monotonic() - self.began, said["counts"], figures, dict(self.kills))
            self.samples.append(sample)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            print(f"{sample.at:6.0f} s  {shown}  {said['counts']}  killed {sum(self.kills.values())}", flush=True)

    def _follow(self) -> None:
        """What has become of the tasks of the windows before."""
        left: list[str] = []
        for start in range(0, len(self.followed), PAGE):
            asked = self.followed[start : start + PAGE]
            states = {task.id: str(task.status) for task in self.place.client.tasks(PAGE, task_ids=asked).data}
            for task_id in asked:
                if (state := states.get(task_id, "LOST")) in UNFINISHED:
                    left.append(task_id)
                else:
                    self.ends[state] += 1
        self.followed = left

    def settle(self) -> list[str]:
        """Wait for the end of all; what is wrong with it."""
        deadline = time.monotonic() + END_SECONDS
        unfinished: dict[str, Any] = {"limit": 1, "statuses": UNFINISHED}
        while (left := self.place.client.tasks(**unfinished).data) and time.monotonic() < deadline:
            time.sleep(0.2)
        self._follow()
        print(f"one task of {ONE_OF} was looked after: {dict(self.ends)}; killed: {self.kills}")
        failed = [f"tasks were not done {END_SECONDS} s after the last request"] if left or self.followed else []
        return failed + [f"{count} tasks were {end}" for end, count in self.ends.items() if end != "COMPLETE"]

    def taken(self) -> list[str]:
        """Whether the requests were accepted, at all times but those in which there was no server."""
        calm: Counter[str] = Counter()
        before = 0
        for kills, counts in self.counts:
            if kills == before:
                calm.update(counts)
            before = kills
        print(f"requests, but for windows in which the server was killed: {dict(calm)}")
        share = calm["200"] / max(calm.total(), 1)
        failed = [f"only {share:.2%} of the requests were accepted"] if share < TAKEN else []
        if sum(self.kills.values()) < LOOKED * self.seconds / KILLS / 2:
            failed.append(f"only {sum(self.kills.values())} processes were killed")
        if len(self.samples) < LOOKED * self.seconds / WINDOW:
            failed.append(f"only {len(self.samples)} windows were looked at")
        return failed

    def _figures(self) -> dict[str, float]:
        server = psutil.Process(self.place.pid)
        others = [process for process in self.place.processes() if process.pid != server.pid]
        store = sum(path.stat().st_size for path in self.place.data.glob("treadle.db*"))
        return {
            "server MB": pss(server.pid), "containers MB": sum(map(_pss_or_none, others)),
            "files": server.num_fds(), "threads": server.num_threads(),
            "store MB": store / 1e6, "processes": len(others),
        }  # fmt: skip


def _pss_or_none(process: psutil.Process) -> float:
    with contextlib.suppress(MeasureFailed, OSError):
        return pss(process.pid)
    return 0.0  # it has just ended


def verdict(samples: list[Sample]) -> list[str]:
    """What did not stay as it was, from the second fifth of the time to the last; none if all did."""
    fifth = len(samples) // 5
    if not fifth:
        return ["there were too few samples to tell"]
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    failed = []
    for name, (factor, more) in FLAT.items():
        before, after = (median(sample.figures[name] for sample in part) for part in (early, late))
        ok = after <= max(before * factor, before + more)
        print(f"{'flat' if ok else 'GREW':5} {name:14} {before:10.4g} -> {after:10.4g}")
        if not ok:
            failed.append(f"{name} went from {before:.4g} to {after:.4g}")
        if after > MOST.get(name, after):
            failed.append(f"{name} is {after:.4g}, over {MOST[name]:g}: the server has more than it can take")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endure", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long [30]")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="which kills [the time]")
    parser.add_argument("--json", type=Path, help="file for the samples")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="treadle-endure-", dir=DISK))
    notes = Path(tempfile.mkdtemp(prefix="treadle-endure-", dir=MEMORY if MEMORY.is_dir() else folder))
    place = Place(folder / "place", notes / "place")
    (place.data / "config.toml").write_text(f"retention = {KEPT / DAY:.9f}\n")
    try:
        place.up()
        campaign = Campaign(place, asked.minutes, asked.seed)
        campaign.run()
        failed = verdict(campaign.samples) + campaign.taken() + campaign.settle()
    finally:
        place.close()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(notes, ignore_errors=True)
    if asked.json:
        asked.json.write_text(json.dumps([sample._asdict() for sample in campaign.samples], indent=1))
    for line in failed:
        print(f"failed: {line}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
