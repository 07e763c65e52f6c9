"""Forgetting finished tasks after a while, and the oldest logs beyond a cap, in slices too small to be felt."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from treadle.store.base import Store

SLICE = 100  # rows looked at in one transaction: its time is what the others wait, half a millisecond
LARGEST = 1_000  # while many tasks come
AHEAD = 2  # so many times what comes is looked at, for to forget more slowly than tasks come is never to end


class Keep(msgspec.Struct, frozen=True):
    """Look for what ended more than so many seconds ago."""

    seconds: float


class Cap(msgspec.Struct, frozen=True):
    """All logs together may take so many bytes."""

    size: int


class Doomed(msgspec.Struct, frozen=True):
    """Tasks whose outputs have to go before them, and whether the next slice is worth a look at once."""

    task_seqs: Sequence[int]
    blob_keys: Sequence[str]
    more: bool


class Retention:
    """Walks through the tasks from the oldest on, again and again; where it stands is all it remembers.

    Tasks with outputs take two steps, so that bytes go before the rows that name them: a crash between the two leaves
    rows whose task is still there to be chosen again, and never a file that nobody knows of.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._after = 0
        self._newest = 0

    def walk(self, now: float, requests: Sequence[Keep]) -> list[Doomed]:
        """Forget the next slice's tasks that ended long enough ago and have no webhook to be sent.

        Those that have outputs are answered instead: remove the bytes, then `forget` them.
        """
        return [self._walk(now - keep.seconds) for keep in requests]

    def _walk(self, before: float) -> Doomed:
        ended, last = self._store.ended(before, self._after, self._slice())
        self._after = last or 0  # at the end of what is old enough: from the start, at the next tick
        self._store.forget_tasks([task.seq for task in ended if not task.has_outputs])
        saved = [task for task in ended if task.has_outputs]
        keys = [output.key for task in saved for output in self._store.outputs(task.task_id)]
        return Doomed([task.seq for task in saved], keys, more=last is not None)

    def _slice(self) -> int:
        """How many rows to look at: more than have come since the last look, within a walk."""
        before, self._newest = self._newest, self._store.newest_seq()
        came = self._newest - before if self._after else 0
        return max(SLICE, min(LARGEST, AHEAD * came))

    def forget(self, _now: float, requests: Sequence[Doomed]) -> list[None]:
        """Delete these tasks with all that belongs to them."""
        for doomed in requests:
            self._store.forget_tasks(doomed.task_seqs)
        return [None] * len(requests)

    def trim_logs(self, _now: float, requests: Sequence[Cap]) -> list[bool]:
        """Forget the oldest chunks of logs if there are too many; whether there are still too many."""
        return [self._trim_logs(cap.size) for cap in requests]

    def _trim_logs(self, size: int) -> bool:
        over = self._store.log_bytes() - size
        if over > 0:
            self._store.forget_oldest_logs(over, SLICE)
        return self._store.log_bytes() > size

    def forget_containers(self, now: float, requests: Sequence[Keep]) -> list[None]:
        """Delete rows of containers that stopped long enough ago."""
        for keep in requests:
            self._store.forget_containers(now - keep.seconds, SLICE)
        return [None] * len(requests)
