"""Who is to be killed: the live processes of a ground by what they are, and the killing of exactly those."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

from .ground import Ground, about

CALM = 0.5  # seconds of life; most of those who are killed have had as many, and are at work
YOUNG = 0.15  # of the kills take whoever there is, also one that is being born
PATIENCE = 5.0  # seconds to wait for one to kill
LEAST = 3  # deeds of each kind, where there are many deeds
SHARE = 5  # of so many deeds of a kind one has to hit somebody
ENOUGH = 10  # deeds of a kind, for chance to count no more
TICK = os.sysconf("SC_CLK_TCK")


def runners(ground: Ground) -> list[int]:
    """The parents of the containers that the agent has on its books."""
    found = []
    for state in (ground.data / "agent" / "containers").glob("*/state.json"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(json.loads(state.read_text())["pid"])
            if str(state.parent) in about(pid):
                found.append(pid)
    return found


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def templates(ground: Ground) -> list[int]:
    return [template for runner in runners(ground) for template in children_of(runner)]


def of(kind: str, ground: Ground) -> list[int]:
    """Pids of one kind, in no order that lasts."""
    if kind == "runner":
        return runners(ground)
    if kind == "template":
        return templates(ground)
    if kind == "child":
        return [child for template in templates(ground) for child in children_of(template)]
    host = ground.agent if ground.how.apart else ground.server
    assert host is not None
    return [pid for pid in children_of(host.pid) if "treadle.runner.zygote" in about(pid).partition("---")[0]]


class Killer:
    """Kills one process at a time and keeps count. Server and agent come back at once, the rest is the product's.

    Most of them are at work: where all who are born die at once, a queue rests from failed starts.
    """

    def __init__(self, ground: Ground) -> None:
        self.spared: Collection[int] = ()  # processes that are to live on
        self.tried: Counter[str] = Counter()
        self.count: Counter[str] = Counter()
        self._ground = ground

    def kill(self, kind: str, luck: float) -> bool:
        """Kill one of a kind, chosen by `luck` in [0, 1). False if there is none for a while."""
        self.tried[kind] += 1
        if kind == "server":
            self._ground.kill_server()
            self.count[kind] += 1
            self._ground.start()
            return True
        if kind == "agent":
            self._ground.kill_agent()
            self.count[kind] += 1
            self._ground.start_agent()
            return True
        deadline = time.monotonic() + PATIENCE
        calm = 0.0 if luck < YOUNG else CALM
        while not (found := [pid for pid in of(kind, self._ground) if age(pid) >= calm and pid not in self.spared]):
            if time.monotonic() > deadline:
                return False
            threading.Event().wait(0.01)
        killed = signal_to(found[int(luck * 1000) % len(found)], signal.SIGKILL)
        self.count[kind] += killed
        return killed


def age(pid: int) -> float:
    """Seconds that a process lives; 0 when it is gone."""
    try:
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / TICK


def signal_to(pid: int, number: int) -> bool:
    """Signal a process found a moment ago, unless its number has gone to a process that is no container's."""
    try:
        file = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if "treadle" not in about(pid):
            return False
        signal.pidfd_send_signal(file, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(file)
    return True


class Deed(NamedTuple):
    """One that is planned: seconds to wait, whom to kill, and the luck of the choice in [0, 1)."""

    wait: float
    kind: str
    luck: float


def plan(chance: Random, weights: dict[str, float], deeds: int, pause: float) -> list[Deed]:
    """The next deeds, by the weights of the kinds; of many, some are of each kind, however rare it is."""
    rest = deeds - LEAST * len(weights)
    kinds = list(weights) * LEAST if rest > deeds // 2 else []
    kinds += chance.choices(list(weights), list(weights.values()), k=deeds - len(kinds))
    chance.shuffle(kinds)
    return [Deed(chance.uniform(0, 2 * pause), kind, chance.random()) for kind in kinds]


def in_vain(tried: Mapping[str, int], hit: Mapping[str, int]) -> list[str]:
    """Kinds of deeds that hardly ever hit anything, in one line each: a round of those has shown nothing."""
    return [
        f"only {hit.get(kind, 0)} of {count} deeds hit anything: {kind}"
        for kind, count in tried.items()
        if count >= ENOUGH and hit.get(kind, 0) * SHARE < count
    ]
