"""Verbs on tasks: submit, finish, cancel, reap; and the claim that follows each of them in the same commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import msgspec

from treadle.engine.effects import Outbox, ScaleDue, TaskEnded, ToRunner, WebhookDue
from treadle.engine.hints import Hints
from treadle.model.deployment import Deployment, QueueConfig
from treadle.model.errors import Conflict, TreadleError
from treadle.model.task import WAITING, Attempt, Change, Failure, FailureKind, NewTask, Task, TaskStatus
from treadle.model.wire import AttemptRef, Cancel, Finished, Recall, Settled, Work
from treadle.rules import admission, exits, lifecycle
from treadle.rules.lifecycle import Event
from treadle.store.base import Store

REAP_LIMIT = 500
DISPATCH_LIMIT = 1000  # tasks claimed by one look at a deployment …
DISPATCH_BYTES = 32 * 1024 * 1024  # … and what their payloads may be in memory; the rest goes out with the next look
RECALL_SECONDS = 1.0  # without the end of a task in a container that has work ahead


class Submit(msgspec.Struct, frozen=True):
    """Accept a task. `task_id` is a new UUIDv7; `trusted`: whoever names this callback_url may deploy too."""

    task_id: str
    deployment: Deployment
    payload: bytes
    callback_url: str | None = None
    trusted: bool = False


class Report(msgspec.Struct, frozen=True):
    """A runner says over a link how an attempt ended."""

    container_id: str
    finished: Finished
    link: int


class GivenBack(msgspec.Struct, frozen=True):
    """A runner has dropped these attempts before they began."""

    container_id: str
    refs: Sequence[AttemptRef]
    link: int


class CancelTasks(msgspec.Struct, frozen=True):
    workspace_id: int
    task_ids: Sequence[str]


class Queue:
    """Tasks of all deployments. `chance` gives numbers in [0, 1) for jitter; `deployment` looks a definition up."""

    def __init__(
        self,
        store: Store,
        hints: Hints,
        outbox: Outbox,
        deployment: Callable[[str], Deployment],
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._hints = hints
        self._outbox = outbox
        self._deployment = deployment
        self._chance = chance

    def recount(self) -> None:
        """Count what the store holds; once, before the first verb."""
        for deployment_id, (waiting, running) in self._store.unfinished().items():
            self._hints.counts.move(deployment_id, waiting=waiting, running=running)
            self._note_next_due(deployment_id)
        self._hints.journal.forget()

    def config(self, deployment_id: str) -> QueueConfig:
        return self._deployment(deployment_id).config

    # submit

    def submit(self, now: float, requests: Sequence[Submit]) -> list[str | TreadleError]:
        """Insert tasks; those that find a free child are inserted already claimed. Answers their ids."""
        answers: list[str | TreadleError] = [request.task_id for request in requests]
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.deployment.id, []).append(index)
        rows: list[NewTask] = []
        for indexes in groups.values():
            deployment = requests[indexes[0]].deployment
            fitting, refusal = self._admit(deployment, len(indexes))
            rows += self._accept(deployment, [requests[index] for index in indexes[:fitting]], now)
            for index in indexes[fitting:]:
                answers[index] = refusal
        self._insert(now, rows)
        return answers

    def submit_many(self, now: float, requests: Sequence[Sequence[Submit]]) -> list[list[str] | TreadleError]:
        """Insert batches, each of tasks of one deployment: all of a batch or none of it."""
        answers: list[list[str] | TreadleError] = []
        rows: list[NewTask] = []
        for batch in requests:
            fitting, refusal = self._admit(batch[0].deployment, len(batch))
            if fitting < len(batch):
                answers.append(refusal)
            else:
                rows += self._accept(batch[0].deployment, batch, now)
                answers.append([submit.task_id for submit in batch])
        self._insert(now, rows)
        return answers

    def _admit(self, deployment: Deployment, count: int) -> tuple[int, TreadleError]:
        """How many of `count` new tasks may enter, and what to tell the others."""
        if not deployment.active:
            return 0, Conflict("Deployment is not active.", "Start it again, or submit to another version.")
        limit = deployment.config.max_pending_tasks
        return admission.fitting(self._hints.counts.unfinished(deployment.id), count, limit), admission.full(limit)

    def _accept(self, deployment: Deployment, submits: Sequence[Submit], now: float) -> list[NewTask]:
        taken: list[str] = []
        if not self._hints.counts.waiting.get(deployment.id):  # nobody is overtaken
            taken = self._hints.slots.take(deployment.id, len(submits))
        rows = []
        for submit, container_id in zip_longest(submits, taken):
            task = self._pending(submit, now)
            if container_id is None:
                rows.append(NewTask(task, submit.payload))
            else:
                claimed = self._claim(task, container_id, now)
                self._send_work(claimed.task, submit.payload)
                rows.append(NewTask(claimed.task, submit.payload))
        waiting = len(submits) - len(taken)
        self._hints.counts.move(deployment.id, waiting=waiting, running=len(taken))
        if waiting:
            self._outbox.add(ScaleDue())
        return rows

    @staticmethod
    def _pending(submit: Submit, now: float) -> Task:
        deployment, config = submit.deployment, submit.deployment.config
        return Task(
            id=submit.task_id,
            workspace_id=deployment.workspace_id,
            deployment_id=deployment.id,
            status=TaskStatus.PENDING,
            created_at=now,
            updated_at=now,
            due=now,
            expires_at=now + config.ttl if config.ttl else None,
            callback_url=submit.callback_url or config.callback_url,
            callback_trusted=submit.trusted or submit.callback_url is None,
        )

    def _insert(self, now: float, rows: Sequence[NewTask]) -> None:
        first = self._store.insert_tasks(rows)
        for seq, new in enumerate(rows, first):
            if new.task.status is TaskStatus.RUNNING:
                self._hints.running.note(msgspec.structs.replace(new.task, seq=seq))
        waiting = dict.fromkeys(new.task.deployment_id for new in rows if new.task.status is TaskStatus.PENDING)
        # They waited in line though a child may be free: those ahead of them may all be delayed.
        self.dispatch(now, [d for d in waiting if self._hints.slots.room(d)])

    @staticmethod
    def _claim(task: Task, container_id: str, now: float) -> Change:
        change = lifecycle.decide(task, Event.CLAIM, now, container_id=container_id)
        assert change is not None, f"{task.status} tasks cannot be claimed"
        return change

    def _send_work(self, task: Task, payload: bytes) -> None:
        work = Work(AttemptRef(task.id, task.attempts), payload, task.callback_url)
        self._outbox.add(ToRunner(task.container_id, work))

    # claim

    def dispatch(self, now: float, deployment_ids: Iterable[str]) -> None:
        """Hand waiting tasks to free children, oldest first."""
        for deployment_id in dict.fromkeys(deployment_ids):
            if self._hints.counts.waiting.get(deployment_id, 0) > 0:
                self._dispatch_one(now, deployment_id)

    def _dispatch_one(self, now: float, deployment_id: str) -> None:
        slots, counts = self._hints.slots, self._hints.counts
        room = slots.room(deployment_id)
        if room == 0:
            self._outbox.add(ScaleDue())
            return
        rows = self._store.waiting(deployment_id, now, min(room, DISPATCH_LIMIT), most=DISPATCH_BYTES)
        taken = slots.take(deployment_id, len(rows))
        changes = [self._claim(task, home, now) for (task, _), home in zip(rows, taken, strict=True)]
        written = self._store.commit(changes)
        assert all(written), "only this thread claims"
        counts.move(deployment_id, waiting=-len(changes), running=len(changes))
        for change, (_, payload) in zip(changes, rows, strict=True):
            self._hints.running.note(change.task)
            self._send_work(change.task, payload)
        if len(changes) < room:
            self._note_next_due(deployment_id)

    def _note_next_due(self, deployment_id: str) -> None:
        self._hints.counts.set_due(deployment_id, self._store.next_due(deployment_id))

    def next_due(self) -> float | None:
        """When the first of the delayed tasks may run; asked from outside, to know when to `wake`."""
        return min(list(self._hints.counts.next_due.values()), default=None)

    def due(self, now: float) -> bool:
        """Whether a delayed task may run now."""
        first = self.next_due()
        return first is not None and first <= now

    def wake(self, now: float, requests: Sequence[None]) -> list[None]:
        """Claim delayed tasks whose time has come."""
        due = [d for d, at in self._hints.counts.next_due.items() if at <= now]
        for deployment_id in due:
            self._hints.counts.set_due(deployment_id, None)
        self.dispatch(now, due)
        return [None] * len(requests)

    def lacks_child(self, container_id: str) -> bool:
        """Whether tasks wait for a free child of a container; asked from outside, of what a report can wait for."""
        home = self._hints.slots.home(container_id)
        return home is None or self._hints.counts.waiting.get(home, 0) > 0

    # finish

    def finish(self, now: float, requests: Sequence[Report]) -> list[None]:
        """Settle reports of runners. A late or stale one changes nothing, and is settled all the same."""
        changes = []
        took: dict[str, list[float]] = {}
        for report in requests:
            change = self._verdict(report, now)
            if change is not None:
                changes.append(change)
                took.setdefault(change.task.deployment_id, []).append(report.finished.ran)
        self.apply(changes)
        for deployment_id, seconds in took.items():
            self._hints.slots.took(deployment_id, seconds)
        self._settle(now, requests)
        homes = {home: None for r in requests if (home := self._hints.slots.home(r.container_id)) is not None}
        self.dispatch(now, [*homes, *took])
        return [None] * len(requests)

    def _settle(self, now: float, requests: Sequence[Report]) -> None:
        settled: dict[str, list[AttemptRef]] = {}
        freed: dict[tuple[str, int], int] = {}
        for report in requests:
            settled.setdefault(report.container_id, []).append(report.finished.ref)
            key = report.container_id, report.link
            freed[key] = freed.get(key, 0) + report.finished.free
        for (container_id, link), count in freed.items():
            self._hints.slots.give(container_id, count, link, now)
        for container_id, refs in settled.items():
            self._outbox.add(ToRunner(container_id, Settled(refs)))

    def running(self, ref: AttemptRef, container_id: str) -> Task | None:
        """The task, if this attempt of it is the one that runs in this container."""
        task = self._hints.running.task(ref.task_id) or self._store.task(ref.task_id)
        if task is None or task.status is not TaskStatus.RUNNING:
            return None
        return task if task.attempts == ref.attempt and task.container_id == container_id else None

    def _verdict(self, report: Report, now: float) -> Change | None:
        finished = report.finished
        task = self.running(finished.ref, report.container_id)
        if task is None:
            return None
        if finished.result is not None:
            return lifecycle.decide(task, Event.SUCCEED, now, result=finished.result)
        config = self.config(task.deployment_id)
        failure, retryable = exits.of_report(finished, config.timeout, config.memory)
        excused = self._excused(task, config)
        return lifecycle.after_failure(
            task, failure, config, now, self._chance(), retryable=retryable, excused=excused
        )

    def _excused(self, task: Task, config: QueueConfig) -> int:
        """Attempts that were interrupted; looked up only where they decide whether there is another one."""
        if task.attempts <= config.retries:
            return 0
        ends = [attempt.failure for attempt in self._store.attempts(task.id)]
        return sum(failure is not None and failure.kind is FailureKind.INTERRUPTED for failure in ends)

    def apply(self, changes: Sequence[Change]) -> list[Change]:
        """Write ends of attempts and tasks, and all that follows; answers those that were still true."""
        written = [c for c, ok in zip(changes, self._store.commit(changes), strict=True) if ok]
        self._count(written)
        for change in written:
            self._hints.running.forget(change.task.id)
            if change.notify:
                self._outbox.add(TaskEnded(change.task.id, change.task.deployment_id))
                if change.task.callback_url:
                    self._outbox.add(WebhookDue())
        return written

    def _count(self, changes: Sequence[Change]) -> None:
        waiting: dict[str, int] = {}
        running: dict[str, int] = {}
        for change in changes:
            task, home = change.task, change.task.deployment_id
            was_running = change.expected is TaskStatus.RUNNING
            running[home] = running.get(home, 0) - was_running
            waiting[home] = waiting.get(home, 0) + (task.status in WAITING) - (not was_running)
        for home, change_of_running in running.items():
            self._hints.counts.move(home, running=change_of_running, waiting=waiting[home])

    # work sent ahead

    def recall(self, now: float, requests: Sequence[None]) -> list[None]:
        """Ask for work back that was sent ahead and lies behind a task that takes longer than expected."""
        for container_id in self._hints.slots.overloaded(now - RECALL_SECONDS):
            self._outbox.add(ToRunner(container_id, Recall()))
        return [None] * len(requests)

    def take_back(self, now: float, requests: Sequence[GivenBack]) -> list[None]:
        """Attempts that have not started and never will: their tasks wait again, at their old place in the line."""
        changes = []
        for given in requests:
            if not self._hints.slots.speaks(given.container_id, given.link):
                continue  # its runner was sent them again when it connected anew
            self._hints.slots.give(given.container_id, len(given.refs), given.link, now)
            for ref in given.refs:
                task = self.running(ref, given.container_id)
                change = lifecycle.decide(task, Event.RETURN, now) if task else None
                if change is not None:
                    self._hints.slots.distrust(change.task.deployment_id)
                    changes.append(change)
        self.dispatch(now, [change.task.deployment_id for change in self.apply(changes)])
        return [None] * len(requests)

    # cancel, expire, lose

    def cancel(self, now: float, requests: Sequence[CancelTasks]) -> list[list[str]]:
        """Cancel what is not finished; unknown ids and other workspaces' are skipped. Answers the cancelled ones."""
        return [self._cancel(request, now) for request in requests]

    def _cancel(self, request: CancelTasks, now: float) -> list[str]:
        changes = []
        for task_id in dict.fromkeys(request.task_ids):
            task = self._store.task(task_id)
            if task is None or task.workspace_id != request.workspace_id:
                continue
            change = lifecycle.decide(task, Event.CANCEL, now, failure=exits.CANCELLED)
            if change is not None:
                changes.append(change)
        written = self.apply(changes)
        for change in written:
            if change.attempt is not None:
                self._recall(change.attempt)
        return [change.task.id for change in written]

    def _recall(self, attempt: Attempt) -> None:
        ref = AttemptRef(attempt.task_id, attempt.number)
        self._outbox.add(ToRunner(attempt.container_id, Cancel(ref)))

    def reap(self, now: float, requests: Sequence[None]) -> list[int]:
        """Expire tasks that waited longer than their ttl, at most REAP_LIMIT of them. Answers how many."""
        changes = []
        for task in self._store.expired(now, REAP_LIMIT):
            ttl = self.config(task.deployment_id).ttl
            change = lifecycle.decide(task, Event.EXPIRE, now, failure=exits.of_expiry(ttl))
            if change is not None:
                changes.append(change)
        return [len(self.apply(changes))] * len(requests)

    def lose(self, now: float, container_id: str, failure: Failure) -> None:
        """Everything that ran in a container has failed with it."""
        changes = []
        for task in self._store.running_in(container_id):
            config = self.config(task.deployment_id)
            excused = self._excused(task, config)
            change = lifecycle.after_failure(task, failure, config, now, self._chance(), excused=excused)
            if change is not None:
                changes.append(change)
        self.dispatch(now, [change.task.deployment_id for change in self.apply(changes)])

    def resume(self, container_id: str, held: Sequence[AttemptRef]) -> int:
        """A runner is back and says what it holds. Answers how many free children the rest takes.

        What runs here by the books but is not held was never received: it is sent (the commit came first, the crash
        before the frame). What is held but not by the books was settled or taken away: it is to be dropped.
        """
        running = {AttemptRef(task.id, task.attempts): task for task in self._store.running_in(container_id)}
        stale = [ref for ref in held if ref not in running]
        for ref in stale:
            self._outbox.add(ToRunner(container_id, Cancel(ref)))
        if stale:
            self._outbox.add(ToRunner(container_id, Settled(stale)))
        told = set(held)
        missing = [task for ref, task in running.items() if ref not in told]
        for task in missing:
            self._send_work(task, self._store.payload(task.id) or admission.EMPTY)
        return len(missing)
