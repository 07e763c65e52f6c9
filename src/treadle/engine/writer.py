"""Group commit: all waiting verbs run in one transaction, which is committed once, and then all are answered.

There is no timer: a batch is what arrived while the last one was being committed. Verbs run on one thread at a time:
on that of the asker where commits are quick, else on one of the writer's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

import msgspec

from treadle.engine.effects import Effect, Outbox
from treadle.engine.hints import Journal
from treadle.store.base import Store

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Verb = Callable[[float, Sequence[Request]], Sequence[Answer | Exception]]
MAX_BATCH = 1000
QUICK = 0.002  # seconds of a commit


class Call(msgspec.Struct, Generic[Request, Answer], eq=False):
    """A verb asked for: its request, and the answer once the commit is durable."""

    verb: Verb[Request, Answer]
    request: Request
    ticket: Callable[[Answer | Exception], None] | None = None  # how the asker is told, after the commit
    answer: Answer | Exception | None = None


AnyCall = Call[Any, Any]
AnyVerb = Verb[Any, Any]
Report = Callable[[Sequence[AnyCall], Sequence[Effect]], None]


class Writer:
    """Runs verbs. `clock` gives Unix seconds; `report` gets each batch after its commit, on the writer's thread.

    The verb `first` runs before the others of its batch, whenever it was asked.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        outbox: Outbox,
        clock: Callable[[], float],
        report: Report,
        *,
        first: AnyVerb | None = None,
    ) -> None:
        self._store = store
        self._journal = journal
        self._outbox = outbox
        self._clock = clock
        self._report = report
        self._first = first
        self._waiting: SimpleQueue[Sequence[AnyCall] | None] = SimpleQueue()
        self._commit_took = 0.0
        self._unsettled = 0  # calls given to the thread, until whoever asked has dealt with its report
        self._thread = Thread(target=self._loop, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self, calls: Sequence[AnyCall]) -> None:
        """Queue verbs for the thread; always asked by the same other thread. Answers come through `report`."""
        self._unsettled += len(calls)
        self._waiting.put(calls)

    def settled(self, batch: Sequence[AnyCall]) -> None:
        """What the thread has reported is carried out and answered; told by the thread that asks."""
        self._unsettled -= len(batch)

    def run_here(self, calls: Sequence[AnyCall]) -> bool:
        """Run verbs at once, on the thread that asks; False if earlier ones are not `settled`, or the disk is slow.

        That the thread has run them is not enough: their effects would be carried out after those of this batch.
        Where a commit is quick, the way to the thread and back takes longer, and two threads that take turns at the
        interpreter slow each other down. Where it is slow, whoever asks had better go on meanwhile.
        """
        if self._unsettled or self._commit_took > QUICK:
            return False
        self.run(calls)
        return True

    def stop(self) -> None:
        """Run what is queued, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while True:
            calls = self._waiting.get()
            if calls is None:
                return
            batch, last = self._with_others(calls)
            self.run(batch)
            if last:
                return

    def _with_others(self, first: Sequence[AnyCall]) -> tuple[list[AnyCall], bool]:
        batch = list(first)
        try:
            while len(batch) < MAX_BATCH:
                calls = self._waiting.get_nowait()
                if calls is None:
                    return batch, True
                batch.extend(calls)
        except Empty:
            pass
        return batch, False

    def run(self, batch: Sequence[AnyCall]) -> None:
        """One transaction for these calls; those of one verb run together, in order."""
        now = self._clock()
        groups = self._grouped(batch)
        try:
            with self._store.transaction():
                for verb, calls in groups.items():
                    self._run_group(now, verb, calls)
                ready = self._clock()
            self._commit_took = self._clock() - ready
        except Exception as error:  # noqa: BLE001 - whatever broke the commit is every asker's answer
            self._undo(0, 0)
            for call in batch:
                call.answer = error
        self._journal.forget()
        self._report(batch, self._outbox.take())

    def _grouped(self, batch: Sequence[AnyCall]) -> dict[AnyVerb, list[AnyCall]]:
        groups: dict[AnyVerb, list[AnyCall]] = {}
        for call in batch:
            groups.setdefault(call.verb, []).append(call)
        if self._first in groups:
            return {self._first: groups.pop(self._first)} | groups
        return groups

    def _run_group(self, now: float, verb: AnyVerb, calls: Sequence[AnyCall]) -> None:
        try:
            answers = self._run_verb(now, verb, calls)
        except Exception as error:  # noqa: BLE001 - one bad request must not take the others with it
            if len(calls) == 1:
                calls[0].answer = error
                return
            for call in calls:
                self._run_group(now, verb, [call])
            return
        for call, answer in zip(calls, answers, strict=True):
            call.answer = answer

    def _run_verb(self, now: float, verb: AnyVerb, calls: Sequence[AnyCall]) -> Sequence[Any]:
        journal, outbox = self._journal.mark(), self._outbox.mark()
        try:
            with self._store.savepoint():
                return verb(now, [call.request for call in calls])
        except Exception:
            self._undo(journal, outbox)
            raise

    def _undo(self, journal: int, outbox: int) -> None:
        self._journal.back_to(journal)
        self._outbox.back_to(outbox)
