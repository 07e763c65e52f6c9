"""Tasks that are to end otherwise than by themselves: cancelled, out of time, and expired while they waited."""

from __future__ import annotations

import threading
import time
from random import Random

import httpx2

from .ground import Ground
from .load import Load

PAUSE = 0.2  # seconds between two deeds
LONG = 30.0  # seconds that a task takes which is to be cancelled before
OVERDUE = 40.0  # seconds; the queue gives them one
STALE = 0.4  # seconds a task, one after the other; the queue lets them wait for two
QUEUES = ("overdue", "stale")


class Endings:
    """A thread beside the load. `asked`: whose cancelling was asked for; `cancelled`: who was answered for, and when.

    Times are those of the monotonic clock in nanoseconds, which is that of the tasks' notes.
    """

    def __init__(self, ground: Ground, load: Load, chance: Random) -> None:
        self.asked: set[str] = set()
        self.cancelled: dict[str, int] = {}
        self._ground, self._load, self._chance = ground, load, chance
        self._long: list[str] = []
        self._late: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No long task is left: each was cancelled, or had ended."""
        self._over.set()
        self._thread.join(60)
        deadline = time.monotonic() + LONG
        while self._long and time.monotonic() < deadline:
            self._cancel_long()
            threading.Event().wait(0.1)

    def _run(self) -> None:
        while not self._over.wait(PAUSE):
            self._chance.choice((self._cancel_long, self._cancel_any, self._exceed, self._let_wait))()

    def _cancel_long(self) -> None:
        """Begin two, then cancel them: at work, most likely, or in whatever state the faults have brought them to."""
        if len(self._long) < 2 and not self._over.is_set():
            self._long += self._load.submit("patient", [{"seconds": LONG}])
        elif self._cancel(self._long):
            self._long = []

    def _cancel_any(self) -> None:
        """Some of the newest: they wait, run, or have ended."""
        newest = list(self._load.accepted.copy())[-20:]
        self._cancel(self._chance.sample(newest, min(2, len(newest))))

    def _exceed(self) -> None:
        self._late = self._load.untold(self._late)
        if len(self._late) < 4:  # a child ends one a second
            self._late += self._load.submit("overdue", [{"seconds": OVERDUE}])

    def _let_wait(self) -> None:
        self._load.submit("stale", [{"seconds": STALE}] * 8)

    def _cancel(self, tasks: list[str]) -> bool:
        """Whether the server answered: none of them goes on after that."""
        self.asked.update(tasks)
        try:
            answer = self._ground.cancel(tasks)
        except (httpx2.HTTPError, ValueError):
            return False
        self.cancelled |= dict.fromkeys(answer, time.monotonic_ns())
        return True
