"""What memory knows about queues and free children: hints that make a claim fast, never decisions.

Everything here can be rebuilt from the store and from what runners say when they connect. Only the writer's thread
changes it; each change leaves its inverse in a journal, so that a transaction that is rolled back leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from treadle.model.task import Task

K = TypeVar("K")
V = TypeVar("V")
Undo = Callable[[], object]


class Counts:
    """Waiting and running tasks of each deployment, and when the next delayed one is due."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.waiting: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.next_due: dict[str, float] = {}

    def move(self, deployment_id: str, *, waiting: int = 0, running: int = 0) -> None:
        """Add to the counts of a deployment."""
        self._add(self.waiting, deployment_id, waiting)
        self._add(self.running, deployment_id, running)
        self._journal.note(lambda: self._back(deployment_id, waiting, running))

    def _back(self, deployment_id: str, waiting: int, running: int) -> None:
        self._add(self.waiting, deployment_id, -waiting)
        self._add(self.running, deployment_id, -running)

    @staticmethod
    def _add(table: dict[str, int], deployment_id: str, count: int) -> None:
        if count:
            table[deployment_id] = table.get(deployment_id, 0) + count

    def set_due(self, deployment_id: str, due: float | None) -> None:
        """When the next waiting task of a deployment may run; None when nobody need look before something happens."""
        before = self.next_due.get(deployment_id)
        self._put_due(deployment_id, due)
        self._journal.note(lambda: self._put_due(deployment_id, before))

    def _put_due(self, deployment_id: str, due: float | None) -> None:
        if due is None:
            self.next_due.pop(deployment_id, None)
        else:
            self.next_due[deployment_id] = due

    def unfinished(self, deployment_id: str) -> int:
        return self.waiting.get(deployment_id, 0) + self.running.get(deployment_id, 0)

    def unfinished_ids(self) -> set[str]:
        """Deployments that have tasks which are not final; may be asked from any thread."""
        counted = {*list(self.waiting), *list(self.running)}
        return {deployment_id for deployment_id in counted if self.unfinished(deployment_id)}


AHEAD_SECONDS = 0.02  # of work that a child may be given ahead
AHEAD_MOST = 256  # tasks a child may hold, the running one included
LONG = 1.0  # seconds: too long to be sent ahead
LEARN = 0.2  # weight of the newest task in what is known of its kind


class Slots:
    """Free children of the connected containers. A container that is not attached gets no work.

    Short tasks are sent ahead: each child may hold what takes it about AHEAD_SECONDS, so that it need not wait for
    the commit and the way of each next one.

    A container's count is what its runner has said to be free less what was taken. It is below zero while more work
    than children is there: work that got lost is sent again, and may meet a child that is not loaded yet.

    Each connection of a runner has a number of its own, its link. What an earlier link still has to say about free
    children counts no more: the new one has told how many there are. Attaching and the end of a link are facts, which
    no rollback undoes; all else is journalled.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._count: dict[str, int] = {}  # attached container -> free children, signed
        self._room: dict[str, dict[str, int]] = {}  # deployment -> container -> tasks it may be sent, only where > 0
        self._home: dict[str, str] = {}  # attached container -> its deployment
        self._link: dict[str, int] = {}  # connected container -> its link
        self._eager: dict[str, int] = {}  # attached container -> children that may be given work ahead
        self._took: dict[str, float] = {}  # deployment -> seconds a task of it takes, lately
        self._ahead: dict[str, int] = {}  # deployment -> tasks a child may be given beside the one it runs
        self.idle_since: dict[str, float] = {}  # attached container -> when its last task ended

    def attach(
        self, container_id: str, deployment_id: str, free: int, *, link: int, eager: int = 0, now: float = 0.0
    ) -> None:
        """A runner is connected and `free` of its children have nothing to do; `eager` may be given work ahead."""
        self.link(container_id, link)
        self._home[container_id] = deployment_id
        self._eager[container_id] = eager
        self._count[container_id] = 0
        self.idle_since[container_id] = now
        self._change(deployment_id, container_id, link, free)
        self._journal.note(lambda: self._forget(container_id, link))

    def link(self, container_id: str, link: int) -> None:
        """A runner is connected, and gets no work until it is attached."""
        self._drop(container_id)
        self._link[container_id] = link

    def unlink(self, container_id: str, link: int) -> None:
        """This connection is closed."""
        self._forget(container_id, link)
        if self._link.get(container_id) == link:
            del self._link[container_id]

    def detach(self, container_id: str) -> None:
        """Nothing is claimed for this container any more, though its link may be open."""
        deployment_id, link = self._home.get(container_id), self._link.get(container_id)
        if deployment_id is None or link is None:
            return
        free, eager = self._count[container_id], self._eager[container_id]
        since = self.idle_since[container_id]
        self._drop(container_id)

        def put_back() -> None:
            if self._link.get(container_id) == link:
                self._home[container_id], self._eager[container_id] = deployment_id, eager
                self._count[container_id], self.idle_since[container_id] = 0, since
                self._change(deployment_id, container_id, link, free)

        self._journal.note(put_back)

    def _forget(self, container_id: str, link: int) -> None:
        if self._link.get(container_id) == link:
            self._drop(container_id)

    def _drop(self, container_id: str) -> None:
        deployment_id = self._home.pop(container_id, None)
        self._count.pop(container_id, None)
        self._eager.pop(container_id, None)
        self.idle_since.pop(container_id, None)
        if deployment_id is not None:
            self._room.get(deployment_id, {}).pop(container_id, None)

    def overtaken(self, container_id: str, link: int) -> bool:
        """Whether a later connection of this runner was greeted before this one."""
        return self._link.get(container_id, link) > link

    def speaks(self, container_id: str, link: int) -> bool:
        """Whether this is the connection that counts; what an earlier one still brings may be overtaken."""
        return self._link.get(container_id) == link

    def home(self, container_id: str) -> str | None:
        """The deployment of an attached container."""
        return self._home.get(container_id)

    def give(self, container_id: str, count: int, link: int, now: float) -> None:
        """`count` more children of an attached container are free, says this link."""
        deployment_id = self._home.get(container_id)
        if deployment_id is None or self._link.get(container_id) != link:
            return
        self._change(deployment_id, container_id, link, count)
        self.idle_since[container_id] = now
        self._journal.note(lambda: self._change(deployment_id, container_id, link, -count))

    def take(self, deployment_id: str, count: int) -> list[str]:
        """Take room for up to `count` tasks of the deployment, each where there is most; the container of each."""
        taken: list[str] = []
        room = self._room.get(deployment_id)
        while room and len(taken) < count:
            container_id = next(iter(room)) if len(room) == 1 else max(room, key=self._count.__getitem__)
            share = min(room[container_id], count - len(taken)) if len(room) == 1 else 1
            self._take(deployment_id, container_id, share)
            taken += [container_id] * share
        return taken

    def _take(self, deployment_id: str, container_id: str, count: int) -> None:
        link = self._link[container_id]
        self._change(deployment_id, container_id, link, -count)
        self._journal.note(lambda: self._change(deployment_id, container_id, link, count))

    def _change(self, deployment_id: str, container_id: str, link: int, count: int) -> None:
        if self._home.get(container_id) != deployment_id or self._link.get(container_id) != link:
            return  # detached since, or connected anew
        free = self._count[container_id] = self._count[container_id] + count
        rooms = self._room.setdefault(deployment_id, {})
        left = free + self._eager[container_id] * self._ahead.get(deployment_id, 0)
        if left > 0:
            rooms[container_id] = left
        else:
            rooms.pop(container_id, None)

    def room(self, deployment_id: str) -> int:
        """How many tasks may be sent to the deployment's containers now, those ahead included."""
        return sum(self._room.get(deployment_id, {}).values())

    def free_in(self, container_id: str) -> int:
        """Free children of one container; below zero when it has more work than children."""
        return self._count.get(container_id, 0)

    def overloaded(self, since: float) -> list[str]:
        """Containers with work ahead in which no task has ended since then."""
        return [c for c, count in self._count.items() if count < 0 and self.idle_since[c] < since]

    # how long tasks take

    def took(self, deployment_id: str, seconds: Sequence[float]) -> None:
        """Tasks of this deployment have run for so long, the newest last; 0 where it is not known."""
        known = self._took.get(deployment_id)
        for one in seconds:
            if one:
                known = one if known is None else known + LEARN * (one - known)
        if known is not None:
            self._learn(deployment_id, known)

    def distrust(self, deployment_id: str) -> None:
        """What was known of this deployment's tasks was wrong: none is sent ahead until short ones have ended."""
        self._learn(deployment_id, LONG)

    def _learn(self, deployment_id: str, seconds: float) -> None:
        before = self._took.get(deployment_id, LONG)
        self._set_took(deployment_id, seconds)
        self._journal.note(lambda: self._set_took(deployment_id, before))

    def _set_took(self, deployment_id: str, seconds: float) -> None:
        self._took[deployment_id] = seconds
        most = int(AHEAD_SECONDS / max(seconds, 1e-6))
        ahead = max(min(most, AHEAD_MOST) - 1, 0)
        if ahead != self._ahead.get(deployment_id, 0):
            self._ahead[deployment_id] = ahead
            for container_id in [c for c, home in self._home.items() if home == deployment_id]:
                self._change(deployment_id, container_id, self._link[container_id], 0)


class Journal:
    """Inverses of what was done since the last commit, newest last."""

    def __init__(self) -> None:
        self._undo: list[Undo] = []

    def note(self, undo: Undo) -> None:
        self._undo.append(undo)

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        """Set `table[key]` until a rollback."""
        self._put_back_later(table, key)
        table[key] = value

    def drop(self, table: dict[K, V], key: K) -> None:
        """Take a key out of a table, if it is there, until a rollback."""
        if key in table:
            self._put_back_later(table, key)
            del table[key]

    def _put_back_later(self, table: dict[K, V], key: K) -> None:
        if key in table:
            before = table[key]
            self.note(lambda: table.update({key: before}))
        else:
            self.note(lambda: table.pop(key, None))

    def mark(self) -> int:
        return len(self._undo)

    def back_to(self, mark: int) -> None:
        while len(self._undo) > mark:
            self._undo.pop()()

    def forget(self) -> None:
        self._undo.clear()


class Running:
    """Rows of tasks that were claimed here and have not ended: what the store would answer if it were asked.

    A row that is not here, or not any more, is read from the store; a change that was decided from a row that is
    not true any more is refused there.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._tasks: dict[str, Task] = {}

    def task(self, task_id: str) -> Task | None:
        return self._tasks.get(task_id)

    def note(self, task: Task) -> None:
        """This task has been claimed; the row with its seq."""
        self._tasks[task.id] = task
        self._journal.note(lambda: self.forget(task.id))

    def forget(self, task_id: str) -> None:
        """It has ended, or waits again. A rollback need not bring it back."""
        self._tasks.pop(task_id, None)


class Hints:
    """The journal and the kinds of hints it guards."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.counts = Counts(self.journal)
        self.slots = Slots(self.journal)
        self.running = Running(self.journal)
