"""Which containers were given up, why, and what went on in them: no attempt begins beside another that may live."""

from __future__ import annotations

from collections.abc import Set

from treadle.engine.assemble import Engine
from treadle.model.container import Container, ContainerStatus
from treadle.model.wire import LEASE_SECONDS, AttemptRef

from .machines import Runner

UNSEEN = 5.0  # seconds: a smaller jump of the clock cannot be told from time that passes


class Leases:
    """Containers as of the last commit. `lived` are seconds that have passed, whatever clocks were set to."""

    def __init__(self) -> None:
        self._live: dict[str, Container] = {}
        self._renewed: dict[str, float] = {}  # container -> when its lease was last written, of `lived`
        self._heard: dict[str, float] = {}  # container -> when the server last heard its runner, of `lived`
        self._condemned: set[str] = set()
        self._agents: Set[str] = set()
        self._unreached: set[str] = set()  # given up without a word of their agent, which could not be asked
        self._running: dict[str, list[tuple[AttemptRef, Runner]]] = {}  # task -> attempts that have begun
        self.killed = 0  # containers that were given up while user code ran in them

    def began(self, ref: AttemptRef, runner: Runner) -> None:
        """User code runs an attempt: no other of its task is alive, but where nobody could have had it killed."""
        others = [(one, there) for one, there in self._running.get(ref.task_id, []) if there.alive and one in there.running]
        for one, there in others:
            assert there is not runner, f"{ref} runs beside {one} in {runner.id}"
            assert there.id in self._unreached, f"{ref} runs in {runner.id} while {one} is alive in {there.id}"
        self._running[ref.task_id] = [*others, (ref, runner)]

    def heard(self, container_id: str, lived: float) -> None:
        """The server hears of a runner, and needs no room on its disk for that."""
        self._heard[container_id] = lived

    def check(self, engine: Engine, now: float, lived: float) -> None:
        """After a commit."""
        before, self._live = self._live, dict(engine.roster.live)
        for container in before.values():
            if container.id not in self._live:
                self._ended(engine, container, now)
        for container in self._live.values():
            old = before.get(container.id)
            if container.id in engine.roster.condemned and container.id not in self._condemned:
                written = container.status is ContainerStatus.STOPPING and container.lease_until > now
                assert written, f"to be killed, and it was not written: {container}"
                self._given_up(container, lived)
            elif old is None or old.lease_until != container.lease_until:
                self._renewed[container.id] = lived
        self._condemned = set(engine.roster.condemned)
        self._agents = set(engine.roster.agents)

    def just_given_up(self, engine: Engine, container_id: str) -> bool:
        """Whether it was by the commit that is to be checked."""
        return container_id in engine.roster.condemned and container_id not in self._condemned

    def _given_up(self, container: Container, lived: float) -> None:
        """Silence for a lease is needed, less what the clock may be set by unseen: a jump of it is no silence."""
        silent = lived - max(self._renewed[container.id], self._heard.get(container.id, 0.0))
        on_time = container.stop_by is not None or silent >= LEASE_SECONDS - UNSEEN
        assert on_time, f"given up after {silent:.1f} s of silence: {container}"
        self.killed += any(
            there.id == container.id for runs in self._running.values() for ref, there in runs if ref in there.running
        )

    def _ended(self, engine: Engine, container: Container, now: float) -> None:
        waited = container.id in self._condemned and container.lease_until < now
        agents = self._agents & engine.roster.agents.keys()
        if container.status is not ContainerStatus.STARTING and (waited or container.agent_id not in agents):
            self._unreached.add(container.id)
