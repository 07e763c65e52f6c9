"""Verbs on containers: connect, ready, beat, gone, sweep, drain; what their runners and agents tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from treadle.engine.effects import Linked, Outbox, ScaleDue, Served, ToRunner
from treadle.engine.hints import Hints
from treadle.engine.queue import Queue
from treadle.engine.roster import Roster
from treadle.engine.trouble import Troubles
from treadle.model.container import Container, ContainerStatus
from treadle.model.errors import NotFound
from treadle.model.wire import LEASE_SECONDS, AgentHello, Hello, Ready, Stop
from treadle.rules import exits
from treadle.store.base import Store

KILL_SECONDS = 5.0  # for an agent to kill a container and say that it is gone
LOAD_GRACE = 10.0  # for what other children run when one cannot load the handler
RELOAD_GRACE = 10.0  # for what runs on code that was replaced while it is served
PAUSE = 5.0  # seconds between two sweeps, which are due each second

STOP_SECONDS = 15.0  # for a runner to deliver its reports and end once its time to stop is over
START_SECONDS = 300.0  # a container that has not called by then is lost; an image may have to be built first
LOAD_SECONDS = 3600.0  # one that has not loaded the handler by then counts as idle

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
    """A container has ended, or could not be started (`failed`). `tail`: what it left to read about that.

    An agent that says so (`agent_id`) is believed of its own alone.
    """

    container_id: str
    reason: str
    failed: bool = False
    tail: str = ""
    agent_id: str | None = None


class StopContainer(msgspec.Struct, frozen=True):
    """Somebody wants this container to end; running tasks get `grace` seconds."""

    workspace_id: int
    container_id: str
    grace: float


class Drain(msgspec.Struct, frozen=True):
    """Stop every container; running tasks get `grace` seconds."""

    grace: float


class Fleet:
    """Containers of all deployments on all agents, from their first call to their end."""

    def __init__(
        self, *, store: Store, hints: Hints, outbox: Outbox, queue: Queue, roster: Roster, troubles: Troubles
    ) -> None:
        self._store = store
        self._hints = hints
        self._outbox = outbox
        self._queue = queue
        self._roster = roster
        self._troubles = troubles
        self._loaded: dict[str, float] = {}  # containers in which a child could load the handler, and since when
        self._heard: dict[str, float] = {}  # live containers whose runner was heard: a fact, whatever was written
        self.draining = False
        self._swept = 0.0

    def restore(self, now: float) -> None:
        """After a start of the server: every container gets one lease to come back."""
        self._swept = now
        for container in self._store.live_containers():
            self._loaded[container.id] = now  # what ended while nobody looked is no failed start
            self._roster.save(msgspec.structs.replace(container, lease_until=now + LEASE_SECONDS))

    # agents

    def agent_connected(self, now: float, requests: Sequence[AgentHello]) -> list[None]:
        """An agent is there: containers it should run but does not are lost, the rest it is told to keep."""
        for hello in requests:
            self._roster.agents[hello.agent_id] = hello
            self._lease_starts(hello.agent_id, now + START_SECONDS)
            self._roster.tell(hello.agent_id)
            self._outbox.add(ScaleDue())
        return [None] * len(requests)

    def agent_gone(self, now: float, requests: Sequence[AgentHello]) -> list[None]:
        """The link that began with this hello is closed; its containers go on and keep their leases."""
        for hello in requests:
            if self._roster.agents.get(hello.agent_id) is hello:  # else it is back already
                del self._roster.agents[hello.agent_id]
                self._lease_starts(hello.agent_id, now + LEASE_SECONDS)
        return [None] * len(requests)

    def _lease_starts(self, agent_id: str, until: float) -> None:
        """A start may take long while its agent is there to see to it, and no longer than a lease without."""
        for container in [c for c in self._roster.live.values() if c.agent_id == agent_id and c.status is S.STARTING]:
            self._roster.save(msgspec.structs.replace(container, lease_until=until))

    # runners

    def connect(self, now: float, requests: Sequence[Connected]) -> list[NotFound | None]:
        """A runner is (again) connected; refused when its container is not wanted any more."""
        return [self._connect(request.hello, request.link, now) for request in requests]

    def _connect(self, hello: Hello, link: int, now: float) -> NotFound | None:
        container = self._roster.live.get(hello.container_id)
        if container is None:
            return NotFound(f"Container {hello.container_id} is not wanted any more.")
        if self._hints.slots.overtaken(container.id, link):
            return None  # what it says was true before, and the runner has hung up
        self._heard[container.id] = now
        self._outbox.add(Linked(container.id, link))
        missing = self._queue.resume(container.id, hello.held)
        if container.status is S.STOPPING:
            self._hints.slots.link(container.id, link)
            grace = 0.0 if container.stop_by is None else max(container.stop_by - now, 0.0)
            self._outbox.add(ToRunner(container.id, Stop(grace, container.reason)))
            self._renew(container, now)
            return None
        self._roster.forget_start(container.id)
        started = container.started_at if container.started_at is not None else now
        agent = self._roster.agents.get(container.agent_id)
        self._roster.save(
            msgspec.structs.replace(
                container, status=S.RUNNING, started_at=started, lease_until=now + LEASE_SECONDS,
                limits=agent.limits if agent else container.limits, isolation=hello.isolation,
            )
        )
        config = self._queue.config(container.deployment_id)
        eager = config.workers if config.retries else 0  # what is lost with a container costs an attempt
        self._hints.slots.attach(
            container.id, container.deployment_id, hello.free - missing, link=link, eager=eager, now=now
        )
        if hello.free > 0 or hello.held:
            self._note_loaded(container.id, now)
        self._queue.dispatch(now, [container.deployment_id])
        return None

    def freed(self, now: float, requests: Sequence[Freed]) -> list[None]:
        """Children have been loaded and are free."""
        for request in requests:
            self._note_loaded(request.container_id, now)
            self._hints.slots.give(request.container_id, request.ready.free, request.link, now)
        homes = [home for r in requests if (home := self._hints.slots.home(r.container_id)) is not None]
        self._queue.dispatch(now, homes)
        return [None] * len(requests)

    def _note_loaded(self, container_id: str, now: float) -> None:
        """A child could load the handler: whatever kept containers from starting is over."""
        home = self._hints.slots.home(container_id)
        if home is not None:
            self._loaded.setdefault(container_id, now)
            self._troubles.forget(home)
            if self._roster.is_served(home):
                self._relieve(container_id, home, now)

    def _relieve(self, container_id: str, deployment_id: str, now: float) -> None:
        """A container of what is served is ready: those with older code stop, if it is not one of them itself."""
        if self._roster.outdated(self._roster.live[container_id]):
            return
        self._outbox.add(Served(deployment_id, "ready", container_id))
        for other in self._roster.of(deployment_id):
            if self._roster.outdated(other):
                self.dismiss(other, RELOAD_GRACE, "replaced by newer code", now)

    def loaded_at(self, container: Container, now: float) -> float | None:
        """When a child of it was first ready for work; None while it loads, for which it has LOAD_SECONDS."""
        since, called = self._loaded.get(container.id), container.started_at
        if since is None and called is not None and not 0 <= now - called < LOAD_SECONDS:
            return called
        return since

    def beat(self, now: float, requests: Sequence[str]) -> list[None]:
        """Heartbeats of runners renew their containers' leases; they count also where that cannot be written."""
        live = self._roster.live
        beating = [live[container_id] for container_id in dict.fromkeys(requests) if container_id in live]
        self._heard.update((container.id, now) for container in beating)
        for container in beating:
            if container.status is not S.STARTING:
                self._renew(container, now)
        return [None] * len(requests)

    def _renew(self, container: Container, now: float) -> None:
        if container.id not in self._roster.condemned:
            self._roster.save(msgspec.structs.replace(container, lease_until=now + LEASE_SECONDS))

    def disconnected(self, _now: float, requests: Sequence[Disconnected]) -> list[None]:
        """A link is closed: no more work for that container until it calls again. Its lease runs on."""
        for request in requests:
            self._hints.slots.unlink(request.container_id, request.link)
        return [None] * len(requests)

    def gone(self, now: float, requests: Sequence[Gone]) -> list[None]:
        """Containers have ended: what ran in them failed with them."""
        believed = [request for request in requests if self._may_say_so(request)]
        for request in believed:
            self._hints.slots.detach(request.container_id)  # all first, see sweep
        for request in believed:
            container = self._roster.live.get(request.container_id)
            if container is not None:
                failed = request.failed or self._never_worked(container)
                told = container.id in self._roster.condemned or _time_is_up(container, now)
                reason = container.reason if told else request.reason
                self._end(container, Gone(container.id, reason, failed, request.tail), now)
        return [None] * len(requests)

    def _may_say_so(self, gone: Gone) -> bool:
        container = self._roster.live.get(gone.container_id)
        return container is not None and gone.agent_id in (None, container.agent_id)

    def load_failed(self, now: float, requests: Sequence[Gone]) -> list[None]:
        """A child cannot load the handler: its container takes no more work, and ends when the others have finished.

        Not before: what runs in them is healthy, and must not run twice at once.
        """
        for request in requests:
            container = self._roster.live.get(request.container_id)
            if container is not None and container.status is not S.STOPPING:
                self._troubles.start_failed(container.deployment_id, request.reason, now, request.tail)
                if self._roster.is_served(container.deployment_id):
                    self._outbox.add(Served(container.deployment_id, "failed", request.reason))
                self.stop(container, LOAD_GRACE, request.reason, now)
        return [None] * len(requests)

    def _never_worked(self, container: Container) -> bool:
        """It ended by itself before a child was ready: starting it over and over would not help."""
        return container.status is not S.STOPPING and container.id not in self._loaded

    def _end(self, container: Container, gone: Gone, now: float) -> None:
        self._hints.slots.detach(container.id)
        self._roster.save(msgspec.structs.replace(container, status=S.STOPPED, ended_at=now, reason=gone.reason))
        if gone.failed:
            self._troubles.start_failed(container.deployment_id, gone.reason, now, gone.tail)
        self._hints.journal.drop(self._loaded, container.id)
        self._hints.journal.drop(self._heard, container.id)
        failure = exits.of_interruption if _time_is_up(container, now) else exits.of_loss
        self._queue.lose(now, container.id, failure(gone.reason))
        self._outbox.add(ToRunner(container.id, Stop(0.0, gone.reason)))  # if it still lives: nothing it does counts
        self._roster.tell(container.agent_id)
        self._outbox.add(ScaleDue())

    # ticks

    def sweep(self, now: float, requests: Sequence[None]) -> list[int]:
        """Containers whose lease has run out are lost, and so are those that should have stopped. Answers how many.

        After a pause of our own (the machine slept, the clock was set) they have a whole lease from now on, however
        much was left of it: their heartbeats may be waiting to be read.
        """
        before, self._swept = self._swept, now
        self._hints.journal.note(lambda: self._not_swept_since(before))
        passed = now - before
        if not 0 <= passed <= PAUSE:
            self._grant_all(now, set_back=passed < 0)
        late = [c for c in self._roster.live.values() if self._is_silent(c, now) or self._is_overdue(c, now)]
        for container in late:
            self._hints.slots.detach(container.id)  # all first: what one leaves is not for another of them
        for container in late:
            self._lost(container, now)
        return [len(late)] * len(requests)

    def _not_swept_since(self, before: float) -> None:
        """The sweep was not written, so what it has granted after a pause is still to be granted."""
        self._swept = before

    def _grant_all(self, now: float, *, set_back: bool) -> None:
        """A whole lease from now on for everybody; what was heard on the clock before means nothing on this one."""
        heard, self._heard = self._heard, {}
        self._hints.journal.note(lambda: self._hear_again(heard))
        until = now + LEASE_SECONDS
        for container in list(self._roster.live.values()):
            if set_back or container.lease_until < until:
                self._roster.save(msgspec.structs.replace(container, lease_until=until))

    def _hear_again(self, heard: dict[str, float]) -> None:
        self._heard = heard | self._heard

    def _is_silent(self, container: Container, now: float) -> bool:
        """Its lease has run out, and it was not heard for as long: a full disk keeps leases from being written."""
        heard = self._heard.get(container.id, -inf)
        counts = container.id not in self._roster.condemned and abs(now - heard) < LEASE_SECONDS
        return container.lease_until < now and not counts

    def _is_overdue(self, container: Container, now: float) -> bool:
        """It was told to stop, and its runner should have ended it by now."""
        return _time_is_up(container, now - STOP_SECONDS) and container.id not in self._roster.condemned

    def _lost(self, container: Container, now: float) -> None:
        silent = container.started_at is None
        reason = "its runner did not call in time" if silent else f"no heartbeat for {LEASE_SECONDS:.0f} seconds"
        condemned = container.id in self._roster.condemned
        if condemned or _time_is_up(container, now):
            reason = container.reason
        reachable = container.agent_id in self._roster.agents
        if silent or condemned or not reachable:
            self._end(container, Gone(container.id, reason, failed=silent and reachable), now)
        else:
            self._condemn(container, reason, now)

    def _condemn(self, container: Container, reason: str, now: float) -> None:
        """Have it killed before its tasks run elsewhere: silent is not dead, and nothing may run twice at once.

        It is lost when its agent says that it is gone, or has not said so in time.
        """
        self._roster.condemn(container.id)
        self._hints.slots.detach(container.id)
        until = now + KILL_SECONDS
        self._roster.save(msgspec.structs.replace(container, status=S.STOPPING, reason=reason, lease_until=until))
        self._roster.tell(container.agent_id)

    def stop(self, container: Container, grace: float, reason: str, now: float) -> None:
        """No more work; what runs may finish within `grace`; past it the sweep takes the container away."""
        self._hints.slots.detach(container.id)
        stop_by = now + grace
        self._roster.save(msgspec.structs.replace(container, status=S.STOPPING, reason=reason, stop_by=stop_by))
        self._outbox.add(ToRunner(container.id, Stop(grace, reason)))

    def end(self, now: float, requests: Sequence[StopContainer]) -> list[NotFound | None]:
        """End containers that users name; what still runs after the grace is interrupted, and retried."""
        answers: list[NotFound | None] = []
        for request in requests:
            container = self._roster.live.get(request.container_id)
            if container is None or container.workspace_id != request.workspace_id:
                advice = "`treadle container list` shows those that run."
                answers.append(NotFound(f"No container {request.container_id[:128]!r} is running.", advice))
                continue
            self.dismiss(container, request.grace, "stopped on request", now)
            answers.append(None)
        return answers

    def dismiss(self, container: Container, grace: float, reason: str, now: float) -> None:
        """Stop a container in whatever state it is: one that never called is taken away at once."""
        if container.status is S.STARTING:
            self._end(container, Gone(container.id, f"{reason} before it was ready"), now)
        elif container.id not in self._roster.condemned and not _time_is_up(container, now + grace):
            self.stop(container, grace, reason, now)

    def drain(self, now: float, requests: Sequence[Drain]) -> list[None]:
        """The server is going away for good: stop everything, start nothing."""
        self.draining = True
        for container in list(self._roster.live.values()):
            self.dismiss(container, requests[0].grace, "shut down", now)
        return [None] * len(requests)


def _time_is_up(container: Container, now: float) -> bool:
    """It was told to stop by a time that is over: what it has not finished was cut off, by no fault of its own."""
    return container.stop_by is not None and container.stop_by <= now
