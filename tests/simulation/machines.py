"""What stands around the engine in the simulated world: links, runners and agents, as the real ones behave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from treadle.agent.reconcile import Forget, Kill, Known, ReportLost, Start, State, reconcile
from treadle.model.wire import (
    AgentHello,
    AttemptRef,
    Beat,
    Cancel,
    ContainerSpec,
    Exited,
    Finished,
    Gpu,
    Hello,
    LoadFailed,
    Ready,
    Recall,
    Returned,
    Settled,
    Stop,
    Wanted,
    Work,
)

ORPHAN_GRACE = 60.0
SETTLE_SECONDS = 5.0
BEAT_SECONDS = 3.0


class Wire:
    """One connection: messages under way in both directions. `owner` is the runner or agent that opened it."""

    def __init__(self, number: int, owner: Runner | Agent) -> None:
        self.number = number
        self.owner = owner
        self.up: deque[Any] = deque()
        self.down: deque[Any] = deque()
        self.is_open = True  # for its owner; the server learns of it when it has read the rest
        self.hung_up = False  # by the server; its owner learns of it when it has heard the rest
        self.refused = False  # … because the owner is not wanted any more
        self.asked = False  # the server has read the first message
        self.greeted = False  # and its commit was answered


class Witness(Protocol):
    """Sees user code run."""

    def began(self, ref: AttemptRef, runner: Runner) -> None: ...
    def ended(self, ref: AttemptRef) -> None: ...


class Runner:
    """The program in a container."""

    def __init__(self, spec: ContainerSpec, now: float, witness: Witness, *, loads: bool) -> None:
        self.id = spec.container_id
        self.deployment_id = spec.deployment_id
        self.gpus = spec.gpus
        self.workers = spec.config.workers
        self.loads = loads  # whether children can load the handler
        self.wire: Wire | None = None
        self.loading = self.workers
        self.idle = 0
        self.promised = 0  # idle children that died: the server counts them still
        self.backlog: deque[AttemptRef] = deque()
        self.running: list[AttemptRef] = []
        self.unsettled: dict[AttemptRef, Finished] = {}
        self.stopping = False
        self.stop_at = float("inf")
        self.alive = True
        self.frozen = False  # by SIGSTOP
        self._witness = witness
        self._answered = self._beaten = now

    @property
    def free(self) -> int:
        """What the server must think is free here once nothing is under way."""
        return self.idle + self.promised - len(self.backlog)

    @property
    def has_news(self) -> bool:
        """Something of the server's waits to be heard."""
        return self.wire is not None and (bool(self.wire.down) or self.wire.hung_up) and not self.frozen

    def connect(self, wire: Wire) -> None:
        self.wire = wire
        self.promised = 0
        held = [*self.running, *self.backlog, *self.unsettled]
        free = 0 if self.stopping else self.free
        wire.up.append(Hello(self.id, held, free))
        wire.up.extend(Finished(f.ref, f.result, f.raised, f.died, f.timed_out) for f in self.unsettled.values())

    def cut(self, now: float) -> None:
        """The link is gone, with what was under way to us."""
        if self.wire is not None:
            self.wire.is_open = False
            self.wire.down.clear()
            self.wire, self._answered = None, now

    def hear(self, now: float) -> None:
        """Take the next message of the server."""
        if self.wire is None or not self.has_news:
            return
        if not self.wire.down:
            if self.wire.refused:
                self.end()
            self.cut(now)
            return
        match self.wire.down.popleft():
            case Work(ref=ref):
                self._work(ref)
            case Cancel(ref):
                self._give_up(ref)
            case Recall():
                self._give_back()
            case Settled(refs):
                for ref in refs:
                    self.unsettled.pop(ref, None)
            case Stop(grace):
                self.stop(now + grace)

    def stop(self, at: float) -> None:
        self.stopping, self.stop_at = True, min(self.stop_at, at)
        self._give_back()

    def _give_back(self) -> None:
        if self.backlog:
            self._say(Returned(list(self.backlog)))
            self.backlog.clear()

    def _say(self, message: Any) -> None:
        if self.wire is not None:
            self.wire.up.append(message)

    def _work(self, ref: AttemptRef) -> None:
        if self.stopping or ref in self.running or ref in self.backlog or ref in self.unsettled:
            return
        self.backlog.append(ref)
        if self.idle:
            self.idle -= 1
            self._take_next()

    def _take_next(self) -> None:
        """One child is free: it runs what waits, or waits itself."""
        if not self.backlog:
            self.idle += 1
            return
        ref = self.backlog.popleft()
        self.running.append(ref)
        self._witness.began(ref, self)

    def _give_up(self, ref: AttemptRef) -> None:
        if ref in self.running:
            self.running.remove(ref)
            self.loading += 1
        elif ref in self.backlog:
            self.backlog.remove(ref)
            self._say(Ready(1))

    def load(self) -> None:
        """One child has loaded the handler, or could not."""
        if not self.loading:
            return
        if not self.loads:
            self._say(LoadFailed("ImportError: no"))
            self.end()
            return
        self.loading -= 1
        self._take_next()
        if self.promised:
            self.promised -= 1
        elif not self.stopping:
            self._say(Ready(1))

    def finish(self, finished: Finished) -> None:
        """User code has ended, by itself or with its child."""
        self.running.remove(finished.ref)
        self._witness.ended(finished.ref)
        if finished.died is None and not finished.timed_out:
            self._take_next()
            finished = Finished(
                finished.ref, finished.result, finished.raised, free=not self.stopping, ran=finished.ran
            )
        else:
            self.loading += 1
        self.unsettled[finished.ref] = finished
        self._say(finished)

    def lose_idle_child(self) -> None:
        if self.idle:
            self.idle -= 1
            self.promised += 1
            self.loading += 1

    def end(self) -> None:
        """Every process of the container is gone."""
        self.alive = False
        if self.wire is not None:
            self.wire.is_open = False
            self.wire.down.clear()
            self.wire = None
        self.running.clear()
        self.backlog.clear()

    def tick(self, now: float) -> None:
        if self.frozen:
            return
        if self.wire is not None and abs(now - self._beaten) >= BEAT_SECONDS:
            self._beaten = now
            self._say(Beat())
        if self.stopping:
            if now >= self.stop_at:
                self.running.clear()
            if not self.running and (not self.unsettled or now >= self.stop_at + SETTLE_SECONDS):
                self.end()
        elif self.wire is None and now - self._answered > ORPHAN_GRACE:
            self.end()


class _Known(Known):
    runner: Runner | None = None
    exited: Exited | None = None


class Agent:
    """One machine's agent; with the real agent's `reconcile`. `start` makes the runner of a container, or none."""

    def __init__(
        self, agent_id: str, memory: int, gpus: list[Gpu], start: Callable[[ContainerSpec], Runner | None]
    ) -> None:
        self.id = agent_id
        self.memory = memory
        self.gpus = gpus
        self.wire: Wire | None = None
        self.hello: AgentHello
        self.known: dict[str, _Known] = {}
        self._wanted: dict[str, ContainerSpec] = {}
        self._start = start

    def runners(self) -> list[Runner]:
        return [known.runner for known in self.known.values() if known.runner is not None]

    @property
    def has_news(self) -> bool:
        return self.wire is not None and (bool(self.wire.down) or self.wire.hung_up)

    def connect(self, wire: Wire) -> None:
        self.wire = wire
        running = [key for key, known in self.known.items() if known.state is not State.EXITED]
        wire.up.append(AgentHello(self.id, self.id, 8000, self.memory, self.gpus, "watchdog", running))
        wire.up.extend(known.exited for known in self.known.values() if known.exited)

    def cut(self, now: float) -> None:
        if self.wire is not None:
            self.wire.is_open = False
            self.wire.down.clear()
            self.wire = None

    def hear(self, now: float) -> None:
        if self.wire is None or not self.has_news:
            return
        if not self.wire.down:
            self.cut(now)
            return
        message = self.wire.down.popleft()
        assert isinstance(message, Wanted)
        self._apply(message.containers)

    def _apply(self, wanted: list[ContainerSpec]) -> None:
        self._wanted = {spec.container_id: spec for spec in wanted}
        self._reconcile()

    def _reconcile(self) -> None:
        for action in reconcile(self._wanted.values(), self.known):
            match action:
                case Start(spec):
                    self._begin(spec)
                case ReportLost(container_id):
                    self.known[container_id] = _Known(State.EXITED)
                    self._over(container_id, Exited(container_id, "its processes are gone"))
                case Kill(container_id):
                    self.known[container_id].state = State.STOPPING
                case Forget(container_id):
                    del self.known[container_id]

    def _begin(self, spec: ContainerSpec) -> None:
        runner = self._start(spec)
        self.known[spec.container_id] = _Known(State.RUNNING, spec.gpus, spec.deployment_id, runner)
        if runner is None:
            self._over(spec.container_id, Exited(spec.container_id, "could not be started: no", failed=True))

    def _over(self, container_id: str, exited: Exited) -> None:
        known = self.known[container_id]
        known.state, known.runner = State.EXITED, None
        if container_id in self._wanted:
            known.exited = exited
        else:
            del self.known[container_id]
        if self.wire is not None:
            self.wire.up.append(exited)

    def tick(self, now: float) -> None:
        """Carry out kills, and see what has ended."""
        for container_id, known in list(self.known.items()):
            if known.runner is None:
                continue
            if known.state is State.STOPPING:
                known.runner.end()
            if not known.runner.alive:
                self._over(container_id, Exited(container_id, "ended"))
                self._reconcile()  # another may have waited for this end

    def restart(self) -> None:
        """A new agent adopts what runs and knows nothing else."""
        self.known = {
            key: _Known(State.RUNNING, known.gpus, known.deployment_id, known.runner)
            for key, known in self.known.items()
            if known.runner is not None and known.runner.alive
        }
        self._wanted = {}
