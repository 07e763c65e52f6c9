"""How much of what is printed may be kept: pure decisions, over time that is given."""

from __future__ import annotations

from treadle.model.log import KEPT_BYTES, KEPT_LINES, LINES_AT_ONCE, LINES_PER_SECOND

BYTES_PER_SECOND = 1024.0 * 1024  # of a container
BYTES_AT_ONCE = 4 * 1024 * 1024
AS_THEY_COME = 7 / 8  # of what is kept of an attempt; the rest is for its last lines
LINE_COSTS = 16  # bytes beside its text


class Bucket:
    """So much at once, and so much each second; once it is empty nothing until it holds a second's worth again."""

    def __init__(self, most: float, rate: float, now: float) -> None:
        self._most = most
        self._rate = rate
        self._held = most
        self._at = now
        self._empty = False

    def held(self, now: float) -> float:
        self._held = min(self._most, self._held + (now - self._at) * self._rate)
        self._at = now
        if self._empty and self._held >= self._rate:
            self._empty = False
        return 0.0 if self._empty else self._held

    def take(self, amount: float) -> bool:
        """Take this out; False, and empty, if it holds less."""
        if amount > self._held or self._empty:
            self._empty = True
            return False
        self._held -= amount
        self._empty = self._held < amount
        return True


class Quota:
    """Of an attempt, or (`endless`) of a container's own words. `flow` is what its container shares."""

    def __init__(self, flow: Bucket, now: float, *, endless: bool = False) -> None:
        self._flow = flow
        self._pace = Bucket(LINES_AT_ONCE, LINES_PER_SECOND, now)
        self._lines = float("inf") if endless else int(KEPT_LINES * AS_THEY_COME)
        self._bytes = float("inf") if endless else int(KEPT_BYTES * AS_THEY_COME)

    @property
    def used_up(self) -> bool:
        """Whether nothing more is kept as it comes, however long one waits."""
        return self._lines <= 0

    def room(self, now: float) -> int:
        """How many lines may be kept now, if they are short."""
        if self._flow.held(now) <= 0:
            return 0
        return int(min(self._pace.held(now), self._lines))

    def take(self, size: int) -> bool:
        """Keep a line of so many bytes; False if it is too much."""
        size += LINE_COSTS
        if self._lines < 1 or size > self._bytes:
            self._lines = 0
            return False
        if not (self._flow.take(size) and self._pace.take(1)):
            return False
        self._lines -= 1
        self._bytes -= size
        return True
