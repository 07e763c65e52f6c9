"""Verbs on tasks: submit, finish, cancel, reap; and the claim that follows each of them in the same commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from treadle.engine.effects import Outbox, ScaleDue, TaskEnded, ToRunner, WebhookDue
from treadle.engine.hints import Hints
from treadle.model.deployment import Deployment, QueueConfig
from treadle.model.errors import Conflict, TreadleError
from treadle.model.task import WAITING, Attempt, Change, Failure, NewTask, Task, TaskStatus
from treadle.model.wire import AttemptRef, Cancel, Finished, Recall, Settled, Work
from treadle.rules import admission, exits, lifecycle
from treadle.rules.lifecycle import Event
from treadle.store.base import Store

REAP_LIMIT = 500
RECALL_SECONDS = 1.0  # without the end of a task in a container that has work ahead


class Submit(msgspec.Struct, frozen=True):
    """Accept a task. `task_id` is a new UUIDv7."""

    task_id: str
    deployment: Deployment
    payload: bytes
    callback_url: str | None = None


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
        """Insert tasks; one that finds a free child is inserted already claimed. Answers their ids."""
        return [
            answer if isinstance(answer, TreadleError) else answer[0]
            for answer in self.submit_many(now, [(request,) for request in requests])
        ]

    def submit_many(self, now: float, requests: Sequence[Sequence[Submit]]) -> list[list[str] | TreadleError]:
        """Insert batches, each of tasks of one deployment: all of a batch or none of it."""
        answers: list[list[str] | TreadleError] = []
        rows: list[NewTask] = []
        for batch in requests:
            refused = self._refusal(batch[0].deployment, len(batch))
            if refused is None:
                rows.extend([self._new(submit, now) for submit in batch])
            answers.append(refused or [submit.task_id for submit in batch])
        self._store.insert_tasks(rows)
        self._dispatch_passed_over(now, rows)
        return answers

    def _dispatch_passed_over(self, now: float, rows: Sequence[NewTask]) -> None:
        """New tasks waited in line though a child is free: those ahead of them may all be delayed."""
        waiting = dict.fromkeys(new.task.deployment_id for new in rows if new.attempt is None)
        self.dispatch(now, [d for d in waiting if self._hints.slots.room(d)])

    def _refusal(self, deployment: Deployment, count: int) -> TreadleError | None:
        if not deployment.active:
            return Conflict("Deployment is not active.", "Start it again, or submit to another version.")
        unfinished = self._hints.counts.unfinished(deployment.id)
        return admission.admit(unfinished, count, deployment.config.max_pending_tasks)

    def _new(self, request: Submit, now: float) -> NewTask:
        deployment, config = request.deployment, request.deployment.config
        task = Task(
            id=request.task_id,
            workspace_id=deployment.workspace_id,
            deployment_id=deployment.id,
            status=TaskStatus.PENDING,
            created_at=now,
            updated_at=now,
            due=now,
            expires_at=now + config.ttl if config.ttl else None,
            callback_url=request.callback_url or config.callback_url,
        )
        counts = self._hints.counts
        container_id = None
        if not counts.waiting.get(deployment.id):  # nobody is overtaken
            container_id = self._hints.slots.take(deployment.id)
        if container_id is None:
            counts.move(deployment.id, waiting=1)
            self._outbox.add(ScaleDue())
            return NewTask(task, request.payload)
        claimed = self._claim(task, container_id, now)
        counts.move(deployment.id, running=1)
        self._send_work(claimed.task, request.payload)
        return NewTask(claimed.task, request.payload, claimed.attempt)

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
        changes, payloads = [], []
        for task, payload in self._store.waiting(deployment_id, now, room):
            container_id = slots.take(deployment_id)
            assert container_id is not None, "as many tasks were asked for as there is room for"
            changes.append(self._claim(task, container_id, now))
            payloads.append(payload)
        written = self._store.commit(changes)
        assert all(written), "only this thread claims"
        counts.move(deployment_id, waiting=-len(changes), running=len(changes))
        for change, payload in zip(changes, payloads, strict=True):
            self._send_work(change.task, payload)
        if len(changes) < room:
            self._note_next_due(deployment_id)

    def _note_next_due(self, deployment_id: str) -> None:
        self._hints.counts.set_due(deployment_id, self._store.next_due(deployment_id))

    def due(self, now: float) -> bool:
        """Whether a delayed task may run now: asked from outside to decide whether `wake` is worth a transaction."""
        return any(due <= now for due in list(self._hints.counts.next_due.values()))

    def wake(self, now: float, requests: Sequence[None]) -> list[None]:
        """Claim delayed tasks whose time has come."""
        due = [d for d, at in self._hints.counts.next_due.items() if at <= now]
        for deployment_id in due:
            self._hints.counts.set_due(deployment_id, None)
        self.dispatch(now, due)
        return [None] * len(requests)

    # finish

    def finish(self, now: float, requests: Sequence[Report]) -> list[None]:
        """Settle reports of runners. A late or stale one changes nothing, and is settled all the same."""
        changes = [change for report in requests if (change := self._verdict(report, now)) is not None]
        self.apply(changes, now)
        self._settle(now, requests)
        homes = [home for r in requests if (home := self._hints.slots.home(r.container_id)) is not None]
        self.dispatch(now, homes + [change.task.deployment_id for change in changes])
        return [None] * len(requests)

    def _settle(self, now: float, requests: Sequence[Report]) -> None:
        settled: dict[str, list[AttemptRef]] = {}
        for report in requests:
            settled.setdefault(report.container_id, []).append(report.finished.ref)
            if report.finished.free:
                self._hints.slots.give(report.container_id, 1, report.link, now)
        for container_id, refs in settled.items():
            self._outbox.add(ToRunner(container_id, Settled(refs)))

    def running(self, ref: AttemptRef, container_id: str) -> Task | None:
        """The task, if this attempt of it is the one that runs in this container."""
        task = self._store.task(ref.task_id)
        if task is None or task.status is not TaskStatus.RUNNING:
            return None
        return task if task.attempts == ref.attempt and task.container_id == container_id else None

    def _verdict(self, report: Report, now: float) -> Change | None:
        finished = report.finished
        task = self.running(finished.ref, report.container_id)
        if task is None:
            return None
        if finished.ran:
            self._hints.slots.took(task.deployment_id, finished.ran)
        if finished.result is not None:
            return lifecycle.decide(task, Event.SUCCEED, now, result=finished.result)
        config = self.config(task.deployment_id)
        failure, retryable = self._failure(finished, config.timeout, config.memory)
        return lifecycle.after_failure(task, failure, config, now, self._chance(), retryable=retryable)

    @staticmethod
    def _failure(finished: Finished, timeout: int, memory: int) -> tuple[Failure, bool]:
        if finished.raised is not None:
            return exits.of_exception(finished.raised), finished.raised.retryable
        if finished.died is not None:
            return exits.of_death(finished.died, memory), True
        return exits.of_timeout(timeout), True

    def apply(self, changes: Sequence[Change], now: float) -> list[Change]:
        """Write ends of attempts and tasks, and all that follows; answers those that were still true."""
        written = [c for c, ok in zip(changes, self._store.commit(changes), strict=True) if ok]
        for change in written:
            self._count(change, now)
            if change.notify:
                self._outbox.add(TaskEnded(change.task.id))
                if change.task.callback_url:
                    self._outbox.add(WebhookDue())
        return written

    def _count(self, change: Change, now: float) -> None:
        counts, task = self._hints.counts, change.task
        was_running = change.expected is TaskStatus.RUNNING
        waits = task.status in WAITING
        counts.move(task.deployment_id, running=-was_running, waiting=waits - (not was_running))
        if waits and task.due > now:
            counts.set_due(task.deployment_id, min(task.due, counts.next_due.get(task.deployment_id, task.due)))

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
        self.dispatch(now, [change.task.deployment_id for change in self.apply(changes, now)])
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
        written = self.apply(changes, now)
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
        return [len(self.apply(changes, now))] * len(requests)

    def lose(self, now: float, container_id: str, reason: str) -> None:
        """Everything that ran in a container has failed with it."""
        changes = []
        for task in self._store.running_in(container_id):
            config = self.config(task.deployment_id)
            change = lifecycle.after_failure(task, exits.of_loss(reason), config, now, self._chance())
            if change is not None:
                changes.append(change)
        self.dispatch(now, [change.task.deployment_id for change in self.apply(changes, now)])

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
        missing = [task for ref, task in running.items() if ref not in set(held)]
        for task in missing:
            self._send_work(task, self._store.payload(task.id) or admission.EMPTY)
        return len(missing)
