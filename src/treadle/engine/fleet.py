"""Verbs on containers: connect, ready, beat, gone, sweep, scale, drain; and what the agents are told to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

import msgspec

from treadle.engine.effects import Linked, Outbox, ScaleDue, ToAgent, ToRunner
from treadle.engine.hints import Hints
from treadle.engine.queue import Queue
from treadle.engine.trouble import Troubles
from treadle.model.container import Container, ContainerStatus
from treadle.model.deployment import Deployment, DeploymentKind, Image
from treadle.model.errors import NotFound
from treadle.model.wire import LEASE_SECONDS, AgentHello, ContainerSpec, Hello, Ready, Stop, Wanted
from treadle.rules import autoscale, placement
from treadle.rules.placement import Capacity
from treadle.store.base import Store

START_SECONDS = 300.0  # a container that has not called by then is lost; an image may have to be built first
IDLE_GRACE = 5.0  # an idle container has nothing to finish
KILL_SECONDS = 5.0  # for an agent to kill a container and say that it is gone

PAUSE = 5.0  # seconds between two sweeps, which are due each second

S = ContainerStatus


class Connected(msgspec.Struct, frozen=True):
    """A runner has opened a link, which has a number that no other has."""

    hello: Hello
    link: int


class Freed(msgspec.Struct, frozen=True):
    container_id: str
    ready: Ready
    link: int


class Disconnected(msgspec.Struct, frozen=True):
    container_id: str
    link: int


class Gone(msgspec.Struct, frozen=True):
    """A container has ended, or could not be started (`failed`)."""

    container_id: str
    reason: str
    failed: bool = False


class Drain(msgspec.Struct, frozen=True):
    """Stop every container; running tasks get `grace` seconds."""

    grace: float


class Fleet:
    """Containers of all deployments on all agents.

    `secret` gives a new opaque token, `suffix` eight hex digits for a container id; `deployment` and `image` look
    definitions up.
    """

    def __init__(
        self,
        *,
        store: Store,
        hints: Hints,
        outbox: Outbox,
        queue: Queue,
        deployment: Callable[[str], Deployment],
        image: Callable[[str], Image],
        secret: Callable[[], str],
        suffix: Callable[[], str],
    ) -> None:
        self._store = store
        self._hints = hints
        self._outbox = outbox
        self._queue = queue
        self._deployment = deployment
        self._image = image
        self._secret = secret
        self._suffix = suffix
        self._agents: dict[str, AgentHello] = {}
        self._tokens: dict[str, str] = {}  # of containers that were not started yet
        self.live: dict[str, Container] = {}  # the rows that are not STOPPED
        self._troubles = Troubles()
        self._standing: dict[tuple[int, str], Deployment] = {}  # the newest version of each name
        self._proven: set[str] = set()  # containers in which a child could load the handler
        self._condemned: set[str] = set()  # silent containers that their agents are to kill
        self._draining = False
        self._swept = 0.0

    def restore(self, now: float, workspace_id: int) -> None:
        """After a start of the server: every container gets one lease to come back."""
        self._swept = now
        for container in self._store.live_containers():
            self._proven.add(container.id)  # what ended while nobody looked is no failed start
            self._save(msgspec.structs.replace(container, lease_until=now + LEASE_SECONDS))
        self.watch(now, list(reversed(self._store.deployments(workspace_id))))

    def _save(self, container: Container) -> None:
        self._store.update_container(container)
        before = self.live.get(container.id)
        if container.status is S.STOPPED:
            self.live.pop(container.id, None)
        else:
            self.live[container.id] = container
        self._hints.journal.note(lambda: self._put_back(container.id, before))

    def _put_back(self, container_id: str, before: Container | None) -> None:
        if before is None:
            self.live.pop(container_id, None)
        else:
            self.live[container_id] = before

    # agents

    def agent_connected(self, _now: float, requests: Sequence[AgentHello]) -> list[None]:
        """An agent is there: containers it should run but does not are lost, the rest it is told to keep."""
        for hello in requests:
            self._agents[hello.agent_id] = hello
            self._tell(hello.agent_id)
            self._outbox.add(ScaleDue())
        return [None] * len(requests)

    def agent_gone(self, _now: float, requests: Sequence[AgentHello]) -> list[None]:
        """The link that began with this hello is closed; its containers go on and keep their leases."""
        for hello in requests:
            if self._agents.get(hello.agent_id) is hello:  # else it is back already
                del self._agents[hello.agent_id]
        return [None] * len(requests)

    def _tell(self, agent_id: str) -> None:
        mine = [c for c in self.live.values() if c.agent_id == agent_id and c.id not in self._condemned]
        self._outbox.add(ToAgent(agent_id, Wanted([self._spec(c) for c in mine])))

    def _spec(self, container: Container) -> ContainerSpec:
        deployment = self._deployment(container.deployment_id)
        return ContainerSpec(
            container_id=container.id,
            deployment_id=deployment.id,
            token=self._tokens.get(container.id, ""),
            config=deployment.config,
            image=self._image(deployment.image_id),
            source_id=deployment.source_id,
            started=container.started_at is not None,
            stub_type=deployment.stub_type,
        )

    # runners

    def connect(self, now: float, requests: Sequence[Connected]) -> list[NotFound | None]:
        """A runner is (again) connected; refused when its container is not wanted any more."""
        return [self._connect(request.hello, request.link, now) for request in requests]

    def _connect(self, hello: Hello, link: int, now: float) -> NotFound | None:
        container = self.live.get(hello.container_id)
        if container is None:
            return NotFound(f"container {hello.container_id} is not wanted any more.")
        self._outbox.add(Linked(container.id, link))
        missing = self._queue.resume(container.id, hello.held)
        if container.status is S.STOPPING:
            self._outbox.add(ToRunner(container.id, Stop(max(container.lease_until - now, 0.0), container.reason)))
            return None
        self._tokens.pop(container.id, None)
        started = container.started_at if container.started_at is not None else now
        limits = self._agents[container.agent_id].limits if container.agent_id in self._agents else container.limits
        self._save(
            msgspec.structs.replace(
                container, status=S.RUNNING, started_at=started, lease_until=now + LEASE_SECONDS, limits=limits
            )
        )
        self._hints.slots.attach(container.id, container.deployment_id, hello.free - missing, link, now)
        if hello.free > 0 or hello.held:
            self._loaded(container.id)
        self._queue.dispatch(now, [container.deployment_id])
        return None

    def freed(self, now: float, requests: Sequence[Freed]) -> list[None]:
        """Children have been loaded and are free."""
        for request in requests:
            self._loaded(request.container_id)
            self._hints.slots.give(request.container_id, request.ready.free, request.link, now)
        homes = [home for r in requests if (home := self._hints.slots.home(r.container_id)) is not None]
        self._queue.dispatch(now, homes)
        return [None] * len(requests)

    def _loaded(self, container_id: str) -> None:
        """A child could load the handler: whatever kept containers from starting is over."""
        home = self._hints.slots.home(container_id)
        if home is not None:
            self._proven.add(container_id)
            self._troubles.works(home)

    def beat(self, now: float, requests: Sequence[str]) -> list[None]:
        """Heartbeats of runners renew their containers' leases; a stopping one keeps its deadline."""
        running = [c for c in dict.fromkeys(requests) if c in self.live and self.live[c].status is S.RUNNING]
        for container_id in running:
            self._save(msgspec.structs.replace(self.live[container_id], lease_until=now + LEASE_SECONDS))
        return [None] * len(requests)

    def disconnected(self, _now: float, requests: Sequence[Disconnected]) -> list[None]:
        """A link is closed: no more work for that container until it calls again. Its lease runs on."""
        for request in requests:
            self._hints.slots.unlink(request.container_id, request.link)
        return [None] * len(requests)

    def gone(self, now: float, requests: Sequence[Gone]) -> list[None]:
        """Containers have ended: what ran in them failed with them."""
        for request in requests:
            self._hints.slots.detach(request.container_id)  # all first, see sweep
        for request in requests:
            container = self.live.get(request.container_id)
            if container is not None:
                failed = request.failed or self._never_worked(container)
                reason = container.reason if container.id in self._condemned else request.reason
                self._end(container, Gone(container.id, reason, failed), now)
        return [None] * len(requests)

    def _never_worked(self, container: Container) -> bool:
        """It ended by itself before a child was ready: starting it over and over would not help."""
        return container.status is not S.STOPPING and container.id not in self._proven

    def _end(self, container: Container, gone: Gone, now: float) -> None:
        self._hints.slots.detach(container.id)
        self._tokens.pop(container.id, None)
        self._save(msgspec.structs.replace(container, status=S.STOPPED, ended_at=now, reason=gone.reason))
        if gone.failed:
            self._troubles.start_failed(container.deployment_id, gone.reason, now)
        self._proven.discard(container.id)
        self._condemned.discard(container.id)
        self._queue.lose(now, container.id, gone.reason)
        self._outbox.add(ToRunner(container.id, Stop(0.0, gone.reason)))  # if it still lives: nothing it does counts
        self._tell(container.agent_id)
        self._outbox.add(ScaleDue())

    # ticks

    def sweep(self, now: float, requests: Sequence[None]) -> list[int]:
        """Containers whose lease has run out are lost. Answers how many.

        After a pause of our own (the machine slept, the clock was set) they get one more lease: their heartbeats may
        be waiting to be read.
        """
        paused, self._swept = now - self._swept > PAUSE, now
        late = [c for c in self.live.values() if c.lease_until < now]
        for container in () if paused else late:
            self._hints.slots.detach(container.id)  # all first: what one leaves is not for another of them
        for container in late:
            if paused:
                self._save(msgspec.structs.replace(container, lease_until=now + LEASE_SECONDS))
            else:
                self._lost(container, now)
        return [0 if paused else len(late)] * len(requests)

    def _lost(self, container: Container, now: float) -> None:
        silent = container.started_at is None
        reason = "its runner did not call in time" if silent else f"no heartbeat for {LEASE_SECONDS:.0f} seconds"
        if silent or container.agent_id not in self._agents or container.status is S.STOPPING:
            self._end(container, Gone(container.id, container.reason or reason, failed=silent), now)
        else:
            self._condemn(container, container.reason or reason, now)

    def _condemn(self, container: Container, reason: str, now: float) -> None:
        """Have it killed before its tasks run elsewhere: silent is not dead, and nothing may run twice at once.

        It is lost when its agent says that it is gone, or has not said so in time.
        """
        self._condemned.add(container.id)
        self._hints.slots.detach(container.id)
        until = now + KILL_SECONDS
        self._save(msgspec.structs.replace(container, status=S.STOPPING, reason=reason, lease_until=until))
        self._tell(container.agent_id)

    def scale(self, now: float, requests: Sequence[None]) -> list[None]:
        """Start containers where work waits, stop those that have been idle for long enough."""
        if not self._draining:
            for deployment_id in self._of_interest():
                self._scale_one(self._deployment(deployment_id), now)
        return [None] * len(requests)

    def watch(self, _now: float, requests: Sequence[Deployment]) -> list[None]:
        """These are the newest versions of their names: their `min_containers` count from now on."""
        for deployment in requests:
            key = deployment.workspace_id, deployment.name
            newest = self._standing.get(key)
            if deployment.kind is DeploymentKind.DEPLOYMENT and (not newest or newest.version < deployment.version):
                self._standing[key] = deployment
                self._outbox.add(ScaleDue())
        return [None] * len(requests)

    def _of_interest(self) -> list[str]:
        counts = self._hints.counts
        homes = (c.deployment_id for c in self.live.values())
        standing = (d.id for d in self._standing.values())
        return list(dict.fromkeys([*standing, *counts.waiting, *counts.running, *homes]))

    def _scale_one(self, deployment: Deployment, now: float) -> None:
        active = [c for c in self.of(deployment.id) if c.status is not S.STOPPING]
        newest = self._standing.get((deployment.workspace_id, deployment.name))
        goal = autoscale.wanted(
            self._hints.counts.unfinished(deployment.id),
            deployment.config.autoscaler,
            standing=newest is not None and newest.id == deployment.id,
            active=deployment.active,
        )
        if goal <= len(active):
            self._troubles.room(deployment.id)
        for _ in range(goal - len(active)):
            if not self._start(deployment, now):
                return
        surplus = len(active) - goal
        if surplus > 0:
            idle = [(c.id, since) for c in active if (since := self._idle_since(c)) is not None]
            for container_id in autoscale.leaving(idle, surplus, deployment.config.keep_warm_seconds, now):
                self._stop(self.live[container_id], IDLE_GRACE, "idle", now)

    def of(self, deployment_id: str) -> list[Container]:
        """Live containers of a deployment; may be asked from any thread."""
        return [c for c in list(self.live.values()) if c.deployment_id == deployment_id]

    def _idle_since(self, container: Container) -> float | None:
        since = self._hints.slots.idle_since.get(container.id)
        if since is None or self._store.running_in(container.id):
            return None
        return since

    def _start(self, deployment: Deployment, now: float) -> bool:
        if self._troubles.degraded(deployment.id, now):
            return False
        place = placement.place(deployment.config, self._capacities())
        if not place.agent_id:
            self._troubles.no_room(deployment.id, place.reason)
            return False
        self._troubles.room(deployment.id)
        self._insert(deployment, place.agent_id, now)
        self._tell(place.agent_id)
        return True

    def _insert(self, deployment: Deployment, agent_id: str, now: float) -> None:
        token = self._secret()
        container = Container(
            id=f"taskqueue-{deployment.id}-{self._suffix()}",
            workspace_id=deployment.workspace_id,
            deployment_id=deployment.id,
            agent_id=agent_id,
            status=S.STARTING,
            token_hash=sha256(token.encode()).hexdigest(),
            created_at=now,
            lease_until=now + START_SECONDS,
        )
        self._store.insert_container(container)
        self.live[container.id] = container
        self._tokens[container.id] = token
        self._hints.journal.note(lambda: self._put_back(container.id, None))

    def _capacities(self) -> list[Capacity]:
        used: dict[str, int] = {}
        for container in self.live.values():
            memory = self._deployment(container.deployment_id).config.memory
            used[container.agent_id] = used.get(container.agent_id, 0) + memory
        agents = self._agents.values()
        return [Capacity(a.agent_id, a.cpu, a.memory, tuple(a.gpus), used.get(a.agent_id, 0)) for a in agents]

    def _stop(self, container: Container, grace: float, reason: str, now: float) -> None:
        """No more work; what runs may finish within `grace`; past it the sweep takes the container away."""
        self._hints.slots.detach(container.id)
        until = now + grace + LEASE_SECONDS
        self._save(msgspec.structs.replace(container, status=S.STOPPING, reason=reason, lease_until=until))
        self._outbox.add(ToRunner(container.id, Stop(grace, reason)))

    def drain(self, now: float, requests: Sequence[Drain]) -> list[None]:
        """The server is going away for good: stop everything, start nothing."""
        self._draining = True
        for container in list(self.live.values()):
            if container.status is S.STARTING:
                self._end(container, Gone(container.id, "shut down before it was ready"), now)
            elif container.status is S.RUNNING:
                self._stop(container, requests[0].grace, "shut down", now)
        return [None] * len(requests)

    def why(self, deployment_id: str, now: float) -> str:
        """Why a waiting task of this deployment does not run yet, in one line."""
        trouble = self._troubles.why(deployment_id, now)
        if trouble:
            return trouble
        containers = self.of(deployment_id)
        if any(c.status is S.STARTING for c in containers):
            return "a container is starting"
        if containers:
            return "every child is busy with tasks ahead of it"
        return "no container yet"
