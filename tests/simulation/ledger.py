"""What the world knows to be true of its tasks, held against the store and the hints after each commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import apsw

from treadle.engine.assemble import Engine
from treadle.engine.effects import Effect, TaskEnded, ToRunner
from treadle.model.container import ContainerStatus
from treadle.model.deployment import QueueConfig
from treadle.model.task import FINAL, WAITING, Delivery, DeliveryStatus, TaskStatus
from treadle.model.wire import AttemptRef, Stop, Work
from treadle.store.invariants import Breach, breaches

from .leases import Leases
from .machines import Runner, Wire
from .rows import Row, read, truth
from .traces import Traces

NEWEST = """SELECT workspace_id, name, id, active, MAX(version) FROM deployment
    WHERE name <> '' AND deleted_at IS NULL GROUP BY workspace_id, name"""
KEEP_SECONDS = 5.0  # after its end nothing is forgotten sooner in this world


class Broken(AssertionError):
    """An invariant of the rows does not hold."""

    def __init__(self, breach: Breach) -> None:
        super().__init__(str(breach))
        self.promise = breach.name


class Ledger:
    """Reads the store over a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.accepted: dict[str, QueueConfig] = {}  # those whose id was given to a user
        self.traces = Traces()
        self._latest = 0.0  # of what the clock has shown
        self._forgotten: set[str] = set()
        self._offered: list[frozenset[str]] = []  # batches of which nothing is there yet
        self._refused: set[str] = set()
        self._settling: set[str] = set()  # tasks whose webhook comes to its end in the batch that runs
        self.leases = Leases()
        self._began: dict[AttemptRef, None] = {}  # in order
        self._ended: set[AttemptRef] = set()  # in the runner; the server need not know yet
        self._rows: dict[str, Row] = {}  # as of the last commit
        self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)

    def close(self) -> None:
        self._connection.close()

    def began(self, ref: AttemptRef, runner: Runner) -> None:
        """User code runs an attempt."""
        assert ref not in self._began, f"{ref} ran twice"
        self._began[ref] = None
        self.leases.began(ref, runner)

    def offer(self, ids: Sequence[str]) -> None:
        """A batch is asked for: all of it will be there at once, or none of it ever."""
        self._offered.append(frozenset(ids))

    def answered(self, ids: Sequence[str], config: QueueConfig, *, taken: bool) -> None:
        """A user was given these ids, or told why not."""
        if taken:
            self.accepted.update((task_id, config) for task_id in ids if task_id not in self._forgotten)
        else:
            self._refused.update(ids)

    def ended(self, ref: AttemptRef) -> None:
        """User code has come to an end and its child can take the next task, or is replaced."""
        self._ended.add(ref)

    def begin_batch(self) -> None:
        self._settling.clear()

    def settles(self, delivery: Delivery) -> None:
        """The batch that runs writes down how a webhook was answered."""
        if delivery.status is not DeliveryStatus.PENDING:
            self._settling.add(delivery.task_id)

    def check(self, engine: Engine, now: float, lived: float, effects: Sequence[Effect]) -> None:
        """Everything that must hold after a commit. `lived`: seconds that have passed, whatever the clock says."""
        with self._connection:  # one transaction for all that is read: half of the time that it takes else
            self._check(engine, now, effects)
        self.leases.check(engine, now, lived)

    def _check(self, engine: Engine, now: float, effects: Sequence[Effect]) -> None:
        self._latest = max(self._latest, now)
        before, self._rows = self._rows, read(self._connection)
        self._check_history(engine, before, effects)
        self._check_requests()
        self._check_claims(before, now)
        self._check_rows()
        self._check_results()
        self.traces.check(self._connection, before, self._rows)
        self._check_standing(engine)
        self._check_containers(engine)
        self._check_counts(engine)
        self._check_nothing_waits_in_vain(engine, now)
        self._check_memory(engine)

    def _check_history(self, engine: Engine, before: dict[str, Row], effects: Sequence[Effect]) -> None:
        for task_id, row in before.items():
            after = self._rows.get(task_id)
            if after is None:
                self._forget(row)
                continue
            assert row.status not in FINAL or after.is_as(row), f"a final state changed: {row} {after}"
            may_be_given_back = row.status is TaskStatus.RUNNING
            assert row.attempts - may_be_given_back <= after.attempts
        lost = [task_id for task_id in self.accepted if task_id not in self._rows]
        assert not lost, f"accepted and lost: {lost}"
        ended = sorted(e.task_id for e in effects if isinstance(e, TaskEnded))
        over = sorted(row.id for row in self._rows.values() if row.status in FINAL)
        already = {row.id for row in before.values() if row.status in FINAL}
        assert ended == [task_id for task_id in over if task_id not in already], "waiters are told of each end, once"
        sent = {e.message.ref for e in effects if isinstance(e, ToRunner) and isinstance(e.message, Work)}
        stopped = {e.container_id for e in effects if isinstance(e, ToRunner) and isinstance(e.message, Stop)}
        for row in self._rows.values():
            old = before.get(row.id)
            if row.attempts > (old.attempts if old else 0):
                assert AttemptRef(row.id, row.attempts) in sent, f"claimed and not sent: {row}"
                home = engine.roster.live.get(row.container_id)
                works = home is None or home.status is ContainerStatus.RUNNING or home.id in stopped
                works = works or self.leases.just_given_up(engine, home.id)  # after the claim, in the same commit
                assert works, f"claimed for a container that takes no work: {row}"

    def _forget(self, row: Row) -> None:
        """A task is gone: it had ended long enough ago, and its webhook had come to an end too."""
        over = row.ended_at is not None and row.ended_at < self._latest - KEEP_SECONDS
        told = row.delivery_status != DeliveryStatus.PENDING or row.id in self._settling
        assert over and told, f"forgotten too early: {row}"
        self._forgotten.add(row.id)
        self.accepted.pop(row.id, None)

    def _check_requests(self) -> None:
        """All of a batch or nothing, and nothing of what was refused."""
        there = self._rows.keys()
        for batch in [batch for batch in self._offered if batch & there]:
            assert batch <= there, f"of a batch {sorted(batch & there)} are there, {sorted(batch - there)} are not"
            self._offered.remove(batch)
        assert self._refused.isdisjoint(there), f"refused and there: {sorted(self._refused & there)}"

    def _check_claims(self, before: dict[str, Row], now: float) -> None:
        """Nothing starts before its time, or after it has expired."""
        for row in self._rows.values():
            old = before.get(row.id)
            if old is not None and old.status in WAITING and row.attempts > old.attempts:
                assert old.due <= now, f"claimed {old.due - now} s too early: {row}"
                assert old.expires_at is None or old.expires_at > now, f"claimed after it expired: {row}"

    def _check_rows(self) -> None:
        """What `treadle verify` holds a real file to."""
        for breach in breaches(self._connection):
            raise Broken(breach)

    def _check_results(self) -> None:
        for row in self._rows.values():
            if row.result is not None:
                believed = row.result == truth(row.id, row.attempts)
                assert believed, f"a report was believed of an attempt that did not run there: {row}"

    def _check_standing(self, engine: Engine) -> None:
        """Of each name the newest version stands, on or off, from the commit on that wrote it."""
        newest = {(workspace, name): row for workspace, name, *row, _ in self._connection.execute(NEWEST)}
        standing = {key: [one.id, one.active] for key, one in engine.scaler._standing.items()}
        assert standing == newest, f"there stand {standing}, and the newest are {newest}"

    def _check_containers(self, engine: Engine) -> None:
        rows = {container.id: container for container in engine.store.live_containers()}
        assert rows == engine.roster.live, "the fleet remembers other containers than the store"
        for agent in engine.roster.agents.values():
            here = [container for container in rows.values() if container.agent_id == agent.agent_id]
            memory = sum(engine.catalog.deployment(container.deployment_id).config.memory for container in here)
            assert memory <= agent.memory, f"{agent.agent_id} has given out {memory} of {agent.memory} MiB"

    def _check_counts(self, engine: Engine) -> None:
        waiting = Counter(row.deployment_id for row in self._rows.values() if row.status in WAITING)
        running = Counter(row.deployment_id for row in self._rows.values() if row.status is TaskStatus.RUNNING)
        busy = Counter(
            row.container_id
            for row in self._rows.values()
            if row.status is TaskStatus.RUNNING and AttemptRef(row.id, row.attempts) not in self._ended
        )
        counts = engine.hints.counts
        assert {k: n for k, n in counts.waiting.items() if n} == waiting
        assert {k: n for k, n in counts.running.items() if n} == running
        for container in engine.roster.live.values():
            if engine.hints.slots.home(container.id) is None:
                continue  # not connected: it is sent nothing, and may still hold what was sent ahead
            free = engine.hints.slots.free_in(container.id)
            workers = engine.catalog.deployment(container.deployment_id).config.workers
            assert free + busy[container.id] <= workers, f"{free} free beside {busy[container.id]} in {container.id}"

    def _check_nothing_waits_in_vain(self, engine: Engine, now: float) -> None:
        """Beside a free child only delayed tasks wait, and it is known when the first of them is due."""
        for row in self._rows.values():
            in_time = row.expires_at is None or row.expires_at > now
            if row.status not in WAITING or not in_time or not engine.hints.slots.room(row.deployment_id):
                continue
            due = engine.hints.counts.next_due.get(row.deployment_id)
            assert due is not None and due <= row.due, f"nobody will wake {row}"

    def _check_memory(self, engine: Engine) -> None:
        """What is remembered of running tasks is what the store says of them."""
        for task_id, remembered in engine.hints.running._tasks.items():
            assert remembered == engine.store.task(task_id), f"remembered and not true: {remembered}"

    # when nothing is under way

    def check_devices(self, runners: Sequence[Runner]) -> None:
        """At no time do two live containers have the same device."""
        devices = [uuid for runner in runners for uuid in runner.gpus]
        assert len(devices) == len(set(devices)), f"a device has two users: {devices}"

    def check_agreed(self, engine: Engine, links: Mapping[str, Wire], runners: Sequence[Runner]) -> None:
        """Each linked runner holds what runs in it by the books, no less and no more, and has as many children free."""
        for runner in runners:
            if runner.wire is None or links.get(runner.id) is not runner.wire or runner.stopping:
                continue
            books = [r for r in self._rows.values() if (r.status, r.container_id) == (TaskStatus.RUNNING, runner.id)]
            held = [*runner.running, *runner.backlog, *runner.unsettled]
            assert set(held) == {AttemptRef(r.id, r.attempts) for r in books}, f"{runner.id} holds {held}"
            if engine.hints.slots.home(runner.id) is not None:
                free = engine.hints.slots.free_in(runner.id)
                assert free == runner.free, f"{free} free in {runner.id}, really {runner.free}"

    # the end

    def begun(self) -> list[AttemptRef]:
        """Attempts whose user code has begun, in order."""
        return list(self._began)

    def seen(self) -> list[Row]:
        """The tasks as of the last commit."""
        return list(self._rows.values())

    def is_over(self) -> bool:
        return all(row.status in FINAL for row in self._rows.values())

    def check_over(self, engine: Engine, links: Mapping[str, Wire], runners: Sequence[Runner]) -> None:
        """When everything was allowed to come to its end."""
        waiting = [row for row in self._rows.values() if row.status not in FINAL]
        whys = {row.deployment_id: engine.scaler.why(row.deployment_id, 0) for row in waiting}
        assert not waiting, f"never finished: {waiting} {whys}"
        by_id = {runner.id: runner for runner in runners}
        for container in engine.roster.live.values():
            if container.status is not ContainerStatus.RUNNING or container.id not in links:
                continue
            free, runner = engine.hints.slots.free_in(container.id), by_id[container.id]
            assert free == runner.free == runner.workers, f"{free} free in {container.id}, really {runner.free}"
        self._check_back_to_least(engine)

    @staticmethod
    def _check_back_to_least(engine: Engine) -> None:
        """Nothing runs but what shall always run."""
        for container in engine.roster.live.values():
            scale = engine.catalog.deployment(container.deployment_id).config.autoscaler
            alive = [c for c in engine.roster.of(container.deployment_id) if c.status is not ContainerStatus.STOPPING]
            assert len(alive) <= scale.min_containers, f"{container.id} is idle for good"
