"""The verb on logs: what runners say was printed is kept, while the attempt that printed it is the running one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from treadle.engine.effects import Outbox, Printed
from treadle.engine.roster import Roster
from treadle.model.log import Extent, NewChunk, pack
from treadle.model.task import Task
from treadle.model.wire import AttemptRef, Lines
from treadle.rules import logs
from treadle.store.base import Store


class Keep(msgspec.Struct, frozen=True):
    """A runner says over its link what was printed."""

    container_id: str
    printed: Lines


class Logs:
    """`running` answers the task if this attempt of it is the one that runs in this container."""

    def __init__(
        self, store: Store, outbox: Outbox, roster: Roster, running: Callable[[AttemptRef, str], Task | None]
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._roster = roster
        self._running = running

    def keep(self, _now: float, requests: Sequence[Keep]) -> list[None]:
        """Store lines. Those of attempts that are not running (any more) are dropped, and those over the limits."""
        batch = _Batch()
        for request in requests:
            if request.printed.lines:
                self._keep_one(request, batch)
        if batch.chunks:
            self._store.insert_logs(batch.chunks)
            self._outbox.add(Printed(frozenset(batch.topics)))
        for container_id, upto in batch.own.items():
            if before := logs.past(upto):
                self._store.trim_own_log(container_id, before)
        return [None] * len(requests)

    def _keep_one(self, request: Keep, batch: _Batch) -> None:
        ref, container_id = request.printed.ref, request.container_id
        if ref is None:
            self._keep_own(container_id, request.printed, batch)
            return
        task = self._running(ref, container_id)
        if task is None:
            return
        body = pack(request.printed.lines)
        before = batch.attempts.get(ref) or self._store.log_end(task.seq, ref.attempt)
        upto = logs.after(before, len(request.printed.lines), len(body))
        if logs.fits(upto):
            batch.attempts[ref] = upto
            batch.chunks.append(NewChunk(container_id, task.seq, ref.attempt, False, upto, body))
            batch.topics |= {task.id, container_id, task.deployment_id}

    def _keep_own(self, container_id: str, printed: Lines, batch: _Batch) -> None:
        container = self._roster.live.get(container_id)
        if container is None:
            return
        body = pack(printed.lines)
        before = batch.own.get(container_id) or self._store.own_log_end(container_id)
        upto = batch.own[container_id] = logs.after(before, len(printed.lines), len(body))
        batch.chunks.append(NewChunk(container_id, None, 0, printed.starting, upto, body))
        batch.topics |= {container_id, container.deployment_id}
        if container.for_task and printed.starting:
            batch.topics.add(container.for_task)


class _Batch:
    """What one call of the verb stores, where each attempt and container stands with it, and whom it concerns."""

    def __init__(self) -> None:
        self.chunks: list[NewChunk] = []
        self.attempts: dict[AttemptRef, Extent] = {}
        self.own: dict[str, Extent] = {}
        self.topics: set[str] = set()
