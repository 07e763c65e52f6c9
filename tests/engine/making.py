"""An engine on a real store with hand-held time, and the few things its tests need to exist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw

from treadle.engine.assemble import Chance, Engine, assemble
from treadle.engine.catalog import Deploy, NewDeployment, open_workspace
from treadle.engine.effects import Effect, ToAgent, ToRunner
from treadle.engine.fleet import Connected, Disconnected, Freed, Gone
from treadle.engine.queue import CancelTasks, Report, Submit
from treadle.engine.writer import AnyCall, Call
from treadle.engine.writer import Report as Reported
from treadle.model.container import Container, ContainerStatus, Workspace
from treadle.model.deployment import Autoscaler, Deployment, Image, ImageSpec, QueueConfig, spec_digest
from treadle.model.task import Task, TaskFilter
from treadle.model.wire import (
    AgentHello,
    AttemptRef,
    Cancel,
    ContainerSpec,
    Finished,
    Gpu,
    Hello,
    Raised,
    Ready,
    Settled,
    Stop,
    Wanted,
    Work,
)
from treadle.store.sqlite import SqliteStore

NOW = 1_770_000_000.0
WRITES = ("INSERT", "UPDATE", "DELETE")
SOURCE = "0" * 64
IMAGE = Image("image-1", spec_digest(ImageSpec()), ImageSpec(), "3.11.7", "")
WORKSPACE = Workspace(id=0, external_id="w", name="default", signing_key="sk_a", url_key="sk_b", created_at=NOW)
ONE_FOR_ALL = Autoscaler(max_containers=1, tasks_per_container=1)


class BreakableStore(SqliteStore):
    """A real store whose disk is full for the next `broken` transactions that write something.

    As a full disk makes it do, SQLite rolls such a transaction back as a whole: at its commit, or, where `full_at` says
    so, at that one of its writes. Those that write nothing need no room.
    """

    broken = 0
    full_at = 0  # 0: the commit

    @classmethod
    def fresh(cls, path: Path) -> BreakableStore:
        """A new one, as `open` makes it, without the migrations that every other test of this process has run too."""
        path.write_bytes(_new_file())
        return cls.open(path)

    @contextmanager
    def transaction(self) -> Any:
        with super().transaction():
            before, writes = self._connection.total_changes(), count(1)

            def trace(_cursor: apsw.Cursor, statement: str, _bound: Any) -> bool:
                if statement.startswith(WRITES) and next(writes) == self.full_at:
                    self._run_full()
                return True

            self._connection.exec_trace = trace if self.broken and self.full_at else None
            try:
                yield
            finally:
                self._connection.exec_trace = None
            wrote = self._connection.in_transaction and self._connection.total_changes() != before
            if self.broken and wrote:
                self._run_full()

    def _run_full(self) -> None:
        self.broken -= 1
        self._connection.execute("ROLLBACK")
        raise apsw.FullError("database or disk is full")


@cache
def _new_file() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "treadle.db"
        SqliteStore.open(path).close()
        return path.read_bytes()


def furnish(store: SqliteStore) -> Workspace:
    """A workspace, an image and a source, so that something can be deployed."""
    workspace = open_workspace(store, WORKSPACE)
    with store.transaction():
        store.put_image(IMAGE)
        store.add_source(workspace.id, SOURCE, 1, NOW)
    return workspace


class Desk:
    """Asks verbs one batch at a time, and keeps what their commits asked for."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "treadle.db"
        self.now = NOW
        self.chance = 0.0
        self.sent: list[Effect] = []  # of the last batch
        self._numbers = count(1)
        self.store = BreakableStore.fresh(self.path)
        self.workspace = furnish(self.store)
        self.open()

    def open(self, report: Reported | None = None) -> None:
        """Start an engine over what the store holds; its commits go to the desk, or to whom is named."""
        chance = Chance(
            clock=lambda: self.now,
            jitter=lambda: self.chance,
            secret=lambda: f"secret-{next(self._numbers)}",
            suffix=lambda: f"{next(self._numbers):08x}",
            random=lambda size: hashlib.shake_128(b"%d" % next(self._numbers)).digest(size),
        )
        self.engine: Engine = assemble(self.store, self.path.parent, self.workspace, chance, report or self._report)

    def crash(self) -> None:
        """The server dies and starts again."""
        self.store.close()
        self.store = BreakableStore.open(self.path)
        self.open()

    def close(self) -> None:
        self.store.close()

    def _report(self, batch: Sequence[AnyCall], effects: Sequence[Effect]) -> None:
        self.sent = list(effects)

    def run(self, *asked: tuple[Callable[..., Any], Any]) -> list[Any]:
        """One batch; the answers, errors too."""
        calls = [Call(verb, request) for verb, request in asked]
        self.engine.writer.run(calls)
        return [call.answer for call in calls]

    def ask(self, verb: Callable[..., Any], request: Any = None) -> Any:
        """One verb; raises what it answers as an error."""
        (answer,) = self.run((verb, request))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, and do what the server does each second."""
        self.now += seconds
        queue, fleet, scaler = self.engine.queue, self.engine.fleet, self.engine.scaler
        if queue.due(self.now):
            self.ask(queue.wake)
        self.run((queue.reap, None), (fleet.sweep, None), (self.engine.switch.clear, None), (scaler.scale, None))

    # what users do

    def deploy(self, name: str = "resize", **fields: Any) -> Deployment:
        config = QueueConfig(**{"handler": "app:handler", "autoscaler": ONE_FOR_ALL, **fields})
        made: NewDeployment = self.ask(
            self.engine.switch.deploy,
            Deploy(f"d{next(self._numbers)}", self.workspace.id, name, config, SOURCE, IMAGE.id),
        )
        return made.deployment

    def submission(self, deployment: Deployment, payload: bytes = b"{}", url: str | None = None) -> Submit:
        return Submit(f"t{next(self._numbers):04}", deployment, payload, url)

    def submit(self, deployment: Deployment, **fields: Any) -> str:
        task_id: str = self.ask(self.engine.queue.submit, self.submission(deployment, **fields))
        return task_id

    def cancel(self, *task_ids: str) -> list[str]:
        cancelled: list[str] = self.ask(self.engine.queue.cancel, CancelTasks(self.workspace.id, task_ids))
        return cancelled

    # what agents and runners do

    def agent(
        self, agent_id: str = "a1", memory: int = 4096, cpu: int = 4000, gpus: str = "", running: Sequence[str] = ()
    ) -> AgentHello:
        devices = [Gpu(f"{agent_id}-{n}", name) for n, name in enumerate(gpus.split())]
        hello = AgentHello(agent_id, agent_id, cpu, memory, devices, "watchdog", list(running))
        self.ask(self.engine.fleet.agent_connected, hello)
        return hello

    def container(self, deployment: Deployment) -> str:
        """The newest container that was started for a deployment."""
        return self.engine.roster.of(deployment.id)[-1].id

    def connect(self, container_id: str, free: int = 1, held: Sequence[AttemptRef] = (), link: int | None = None) -> int:
        link = next(self._numbers) if link is None else link
        self.ask(self.engine.fleet.connect, Connected(Hello(container_id, list(held), free), link))
        return link

    def disconnect(self, container_id: str, link: int) -> None:
        self.ask(self.engine.fleet.disconnected, Disconnected(container_id, link))

    def ready(self, container_id: str, link: int, free: int = 1) -> None:
        self.ask(self.engine.fleet.freed, Freed(container_id, Ready(free), link))

    def gone(self, container_id: str, reason: str = "ended", *, failed: bool = False) -> None:
        self.ask(self.engine.fleet.gone, Gone(container_id, reason, failed))

    def beat_and_sweep(self, seconds: int, *beating: str) -> None:
        """Each second a sweep; heartbeats of these containers."""
        for _ in range(seconds):
            self.now += 1
            self.run(*((self.engine.fleet.beat, name) for name in beating), (self.engine.fleet.sweep, None))

    def started(self, deployment: Deployment, free: int = 1) -> tuple[str, int]:
        """A connected container of a deployment that needs none yet, and its link."""
        task_id = self.submit(deployment)
        self.ask(self.engine.scaler.scale)
        self.cancel(task_id)
        container_id = self.container(deployment)
        return container_id, self.connect(container_id, free)

    @staticmethod
    def scale_of(most: int, **fields: int) -> Autoscaler:
        return Autoscaler(max_containers=most, **fields)

    def pair(self, deployment: Deployment) -> tuple[list[str], list[str]]:
        """Two connected containers, each with a task that runs there."""
        tasks = [self.submit(deployment), self.submit(deployment)]
        self.ask(self.engine.scaler.scale)
        names = [container.id for container in self.engine.roster.of(deployment.id)]
        for name in names:
            self.connect(name)
        return names, tasks

    def report(self, container_id: str, link: int, task_id: str, attempt: int = 1, **fields: Any) -> Report:
        if not fields.keys() & {"raised", "died", "timed_out"}:
            fields.setdefault("result", b"1")
        return Report(container_id, Finished(AttemptRef(task_id, attempt), **{"free": True, **fields}), link)

    def finish(self, container_id: str, link: int, task_id: str, attempt: int = 1, **fields: Any) -> None:
        self.ask(self.engine.queue.finish, self.report(container_id, link, task_id, attempt, **fields))

    def fail(self, container_id: str, link: int, task_id: str, attempt: int = 1, *, retryable: bool = True) -> None:
        raised = Raised("ValueError", "no", "Traceback …", retryable)
        self.finish(container_id, link, task_id, attempt, raised=raised)

    # what is to be seen

    def task(self, task_id: str) -> Task:
        found = self.store.task(task_id)
        assert found is not None
        return found

    def tasks(self, deployment: Deployment) -> list[Task]:
        return self.store.tasks(TaskFilter(self.workspace.id, deployment_ids=(deployment.id,), limit=1000))

    def task_of(self, container_id: str) -> str:
        """The task that runs in a container."""
        (task,) = self.store.running_in(container_id)
        return task.id

    def row(self, container_id: str) -> Container:
        found = self.store.container(container_id)
        assert found is not None
        return found

    def status(self, container_id: str) -> ContainerStatus:
        return self.row(container_id).status

    def to_runner(self, kind: type[Any], container_id: str = "") -> list[Any]:
        """Messages of a kind that the last batch sent to runners."""
        return [
            e.message
            for e in self.sent
            if isinstance(e, ToRunner) and isinstance(e.message, kind) and container_id in ("", e.container_id)
        ]

    def wanted(self, agent_id: str = "a1") -> list[ContainerSpec] | None:
        """What the last batch told an agent to run; None when it was told nothing."""
        told = [e.message for e in self.sent if isinstance(e, ToAgent) and e.agent_id == agent_id]
        wanted = [message for message in told if isinstance(message, Wanted)]
        assert wanted == told
        return wanted[-1].containers if wanted else None

    def work(self, container_id: str = "") -> list[tuple[str, int]]:
        """(task, attempt) of the work that the last batch sent."""
        return [(w.ref.task_id, w.ref.attempt) for w in self.to_runner(Work, container_id)]

    def settled(self, container_id: str = "") -> list[tuple[str, int]]:
        return [(r.task_id, r.attempt) for s in self.to_runner(Settled, container_id) for r in s.refs]

    def recalled(self, container_id: str = "") -> list[tuple[str, int]]:
        return [(c.ref.task_id, c.ref.attempt) for c in self.to_runner(Cancel, container_id)]

    def stopped(self, container_id: str = "") -> list[Stop]:
        return self.to_runner(Stop, container_id)

    def counts(self, deployment: Deployment) -> tuple[int, int]:
        """(waiting, running) by the hints, which must be those of the rows."""
        counts = self.engine.hints.counts
        known = counts.waiting.get(deployment.id, 0), counts.running.get(deployment.id, 0)
        assert known == self.store.unfinished().get(deployment.id, (0, 0))
        return known

    def free(self, deployment: Deployment) -> int:
        return self.engine.hints.slots.room(deployment.id)
