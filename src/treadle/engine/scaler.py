"""How many containers each deployment gets: started where work waits, stopped when idle, and why none starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from treadle.engine.effects import Outbox, ScaleDue
from treadle.engine.fleet import START_SECONDS, Fleet
from treadle.engine.hints import Hints
from treadle.engine.roster import Roster
from treadle.engine.trouble import Troubles
from treadle.model.container import Container, ContainerStatus
from treadle.model.deployment import Deployment, DeploymentKind
from treadle.model.errors import TreadleError
from treadle.rules import autoscale, placement
from treadle.store.base import Store

IDLE_GRACE = 5.0  # an idle container has nothing to finish

S = ContainerStatus


class Scaler:
    """Sizes the fleet. `secret` gives a new opaque token, `suffix` eight hex digits for a container id.

    `secrets` gives the values that a container of a deployment is started with, `make_volumes` makes what it mounts.
    """

    def __init__(
        self,
        *,
        store: Store,
        hints: Hints,
        outbox: Outbox,
        roster: Roster,
        fleet: Fleet,
        troubles: Troubles,
        deployment: Callable[[str], Deployment],
        secrets: Callable[[Deployment], dict[str, str]],
        make_volumes: Callable[[Deployment, float], None],
        secret: Callable[[], str],
        suffix: Callable[[], str],
    ) -> None:
        self._store = store
        self._hints = hints
        self._outbox = outbox
        self._roster = roster
        self._fleet = fleet
        self._troubles = troubles
        self._deployment = deployment
        self._secrets = secrets
        self._make_volumes = make_volumes
        self._secret = secret
        self._suffix = suffix
        self._standing: dict[tuple[int, str], Deployment] = {}  # the newest version of each name

    def scale(self, now: float, requests: Sequence[None]) -> list[None]:
        """Start containers where work waits, stop those that have been idle for long enough."""
        if not self._fleet.draining:
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
        homes = (c.deployment_id for c in self._roster.live.values())
        standing = (d.id for d in self._standing.values())
        return list(dict.fromkeys([*standing, *counts.waiting, *counts.running, *homes]))

    def _scale_one(self, deployment: Deployment, now: float) -> None:
        active = [c for c in self._roster.of(deployment.id) if c.status is not S.STOPPING]
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
                self._fleet.stop(self._roster.live[container_id], IDLE_GRACE, "idle", now)

    def _idle_since(self, container: Container) -> float | None:
        since = self._hints.slots.idle_since.get(container.id)
        if since is None or self._store.running_in(container.id):
            return None
        return since

    def _start(self, deployment: Deployment, now: float) -> bool:
        if self._troubles.degraded(deployment.id, now):
            return False
        place = placement.place(deployment.config, self._roster.capacities())
        if not place.agent_id:
            self._troubles.no_room(deployment.id, place.reason)
            return False
        try:
            secrets = self._secrets(deployment)
        except TreadleError as error:  # it goes on by itself once somebody has put that right
            self._troubles.no_room(deployment.id, str(error))
            return False
        self._troubles.room(deployment.id)
        self._make_volumes(deployment, now)
        self._insert(deployment, place.agent_id, secrets, now)
        self._roster.tell(place.agent_id)
        return True

    def _insert(self, deployment: Deployment, agent_id: str, secrets: dict[str, str], now: float) -> None:
        starting = sum(c.status is S.STARTING for c in self._roster.of(deployment.id))
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
            for_task=self._store.waiting_at(deployment.id, now, starting),
        )
        self._roster.insert(container, token, secrets)

    def why(self, deployment_id: str, now: float) -> str:
        """Why a waiting task of this deployment does not run yet, in one line."""
        trouble = self._troubles.why(deployment_id, now)
        if trouble:
            return trouble
        containers = self._roster.of(deployment_id)
        if any(c.status is S.STARTING for c in containers):
            return "a container is starting"
        if containers:
            return "every child is busy with tasks ahead of it"
        return "no container yet"
