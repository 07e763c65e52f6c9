"""How many containers each deployment gets: started where work waits, stopped when idle or for others; why none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from treadle.engine.effects import Outbox, ScaleDue
from treadle.engine.fleet import START_SECONDS, Fleet
from treadle.engine.hints import Hints
from treadle.engine.roster import Roster
from treadle.engine.tokens import token_hash
from treadle.engine.trouble import Troubles
from treadle.model.container import Container, ContainerStatus
from treadle.model.deployment import MAX_TIMEOUT, Deployment, DeploymentKind
from treadle.model.errors import Conflict, TreadleError, Unavailable
from treadle.rules import autoscale, sharing
from treadle.rules.placement import place
from treadle.rules.sharing import Holding, Plan, Start, Wish
from treadle.store.base import Store

IDLE_GRACE = 5.0  # an idle container has nothing to finish
STOP_GRACE = 30.0  # for what runs of a deployment that was stopped
WARM_SECONDS = 10.0  # that a warm-up counts where an idle container would leave at once
LOOK_SECONDS = 0.5  # the least between two looks at a fleet in which nothing has changed

S = ContainerStatus
Fleets = dict[str, list[Container]]  # live containers by deployment
Situation = tuple[list[tuple[str, bool]], list[tuple[str, S]], list[str]]


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
        self._kept: set[str] = set()  # deployments that are served: each has a container of its newest code
        self._warm: dict[str, float] = {}  # deployments that were warmed up, and until when that counts
        self._served: dict[str, int] = {}  # the number of the last start that a deployment got
        self._starts = 0
        self._stuck: tuple[float, Situation] | None = None  # when and where the last look found nothing to do

    def scale(self, now: float, requests: Sequence[None]) -> list[None]:
        """Start containers where work waits, stop those that have been idle for long enough, share what is scarce."""
        if not self._fleet.draining:
            fleets = self._fleets()
            found = [self._size(self._deployment(d), fleets.get(d, []), now) for d in self._of_interest(fleets)]
            wishes = [wish for wish in found if wish is not None]
            if wishes and not self._is_stuck(wishes, now):
                plan = sharing.plan(wishes, self._roster.machines(), self._holdings(fleets, now))
                self._carry_out(plan, now)
                self._stuck = None if plan.starts or plan.stops else (now, self._situation(wishes))
        return [None] * len(requests)

    def _is_stuck(self, wishes: Sequence[Wish], now: float) -> bool:
        """Whether the last look found nothing to do in this same situation, a moment ago.

        Under load each commit leaves work without a slot, and a look at a large fleet takes as long as the commit.
        """
        return (
            self._stuck is not None
            and 0 <= now - self._stuck[0] < LOOK_SECONDS
            and self._stuck[1] == self._situation(wishes)
        )

    def _situation(self, wishes: Sequence[Wish]) -> Situation:
        """All that a look depends on, but for time."""
        return (
            [(wish.deployment_id, wish.pressing) for wish in wishes],
            [(container.id, container.status) for container in self._roster.live.values()],
            list(self._roster.agents),
        )

    def watch(self, deployments: Iterable[Deployment]) -> None:
        """These are made, switched or reloaded by the running transaction.

        Of each name the newest version keeps its `min_containers`.
        """
        standing, kept = dict(self._standing), set(self._kept)
        self._hints.journal.note(lambda: self._watch_again(standing, kept))
        for deployment in deployments:
            if deployment.kind is DeploymentKind.DEPLOYMENT:
                self._stand(deployment.workspace_id, deployment.name)
            elif deployment.served:
                self._kept.add(deployment.id)
            else:
                self._kept.discard(deployment.id)
            self._outbox.add(ScaleDue())

    def _watch_again(self, standing: dict[tuple[int, str], Deployment], kept: set[str]) -> None:
        """After a rollback: what was watched now may never have been written."""
        self._standing, self._kept = standing, kept

    def _stand(self, workspace_id: int, name: str) -> None:
        newest = self._store.deployment_version(workspace_id, name, None)
        if newest is None:
            self._standing.pop((workspace_id, name), None)
        else:
            self._standing[workspace_id, name] = newest

    def warm(self, now: float, requests: Sequence[Deployment]) -> list[TreadleError | None]:
        """Have a container of each ready without a task, for `keep_warm_seconds` (or WARM_SECONDS) from now on."""
        for deployment in requests:
            self._warm[deployment.id] = now + _warm_seconds(deployment)
        self.scale(now, [None])
        return [self._warmed(deployment, now) for deployment in requests]

    def _warmed(self, deployment: Deployment, now: float) -> TreadleError | None:
        if not deployment.active:
            return Conflict("Deployment is not active.", "Start it again, or warm another version up.")
        if any(c.status is not S.STOPPING for c in self._roster.of(deployment.id)):
            return None
        trouble = self._troubles.of(deployment.id)
        why = f"No container was started: {self.why(deployment.id, now)}"
        if trouble is not None and trouble.never:
            return Conflict(why, "Ask for less, or add a machine that has it.")
        return Unavailable(why, "Try again in a moment.")

    # what each should have

    def _fleets(self) -> Fleets:
        fleets: Fleets = {}
        for container in self._roster.live.values():
            fleets.setdefault(container.deployment_id, []).append(container)
        return fleets

    def _of_interest(self, fleets: Fleets) -> list[str]:
        counts = self._hints.counts
        standing = (d.id for d in self._standing.values())
        return list(dict.fromkeys([*standing, *self._kept, *self._warm, *counts.waiting, *counts.running, *fleets]))

    def _size(self, deployment: Deployment, containers: Sequence[Container], now: float) -> Wish | None:
        """Stop what is too much of a deployment; answers what it lacks."""
        active = [c for c in containers if c.status is not S.STOPPING and not self._roster.outdated(c)]
        if not deployment.active:
            for container in active:
                self._fleet.dismiss(container, STOP_GRACE, "its deployment was stopped", now)
            return None
        least = self._least(deployment, now)
        unfinished = self._hints.counts.unfinished(deployment.id) - self._finishing(containers)
        goal = autoscale.wanted(unfinished, deployment.config.autoscaler, least=least)
        if goal <= len(active):
            self._troubles.room(deployment.id)
            self._shrink(deployment, active, len(active) - goal, now)
            return None
        if self._troubles.degraded(deployment.id, now) or not self._has_secrets(deployment):
            return None
        pressing = len(active) < least or self._could_run(deployment.id, now)
        served = self._served.get(deployment.id, 0)
        return Wish(deployment.id, deployment.config, goal - len(active), pressing, served)

    def _has_secrets(self, deployment: Deployment) -> bool:
        """Whether there is all that a container is started with; it goes on once somebody has put that right."""
        try:
            self._secrets(deployment)
        except TreadleError as error:
            self._troubles.no_room(deployment.id, str(error))
            return False
        return True

    def _least(self, deployment: Deployment, now: float) -> int:
        """How many it has at any rate.

        `min_containers` counts for the newest version of a name only: nobody would ever stop the containers of a
        draft or of a version that was replaced.
        """
        left = self._warm.get(deployment.id, now) - now
        if not 0 < left <= _warm_seconds(deployment):  # over, or from before the clock was set back
            self._warm.pop(deployment.id, None)
        newest = self._standing.get((deployment.workspace_id, deployment.name))
        standing = newest is not None and newest.id == deployment.id
        kept = deployment.served or deployment.id in self._warm
        return max(deployment.config.autoscaler.min_containers if standing else 0, int(kept))

    def _finishing(self, containers: Sequence[Container]) -> int:
        """Tasks that run in containers which stop after them: no other container is wanted for those."""
        return sum(len(self._store.running_in(c.id)) for c in containers if c.status is S.STOPPING)

    def _could_run(self, deployment_id: str, now: float) -> bool:
        """Whether a task waits for nothing but a container."""
        due = self._store.next_due(deployment_id) if self._hints.counts.waiting.get(deployment_id) else None
        return due is not None and due <= now

    def _shrink(self, deployment: Deployment, active: Sequence[Container], surplus: int, now: float) -> None:
        if surplus:
            idle = [(c.id, since) for c in active if (since := self._idle_since(c, now)) is not None]
            for container_id in autoscale.leaving(idle, surplus, deployment.config.keep_warm_seconds, now):
                self._fleet.stop(self._roster.live[container_id], IDLE_GRACE, "idle", now)

    def _idle_since(self, container: Container, now: float) -> float | None:
        """Since when a container could have worked and did not; None while it works, loads or is away."""
        since, loaded = self._hints.slots.idle_since.get(container.id), self._fleet.loaded_at(container, now)
        if since is None or loaded is None or self._store.running_in(container.id):
            return None
        return since

    # who gets what

    def _holdings(self, fleets: Fleets, now: float) -> list[Holding]:
        found: list[Holding] = []
        for deployment_id, containers in fleets.items():
            deployment = self._deployment(deployment_id)
            mine = [self._holding(container, deployment, now) for container in containers]
            mine.sort(key=lambda holding: (holding.leaving, holding.idle is not None, -(holding.worked or 0.0)))
            least = self._least(deployment, now)
            found += [replace(h, kept=True) if n < least and not h.leaving else h for n, h in enumerate(mine)]
        return found

    def _holding(self, container: Container, deployment: Deployment, now: float) -> Holding:
        idle, loaded = self._idle_since(container, now), self._fleet.loaded_at(container, now)
        return Holding(
            container_id=container.id,
            deployment_id=deployment.id,
            agent_id=container.agent_id,
            config=deployment.config,
            gpus=container.gpus,
            leaving=container.status is S.STOPPING,
            idle=None if idle is None else abs(now - idle),  # a time ahead was written before the clock was set back
            worked=None if loaded is None else abs(now - loaded),
            loading=max((loaded or now) - (container.started_at or now), 0.0),
        )

    def _carry_out(self, plan: Plan, now: float) -> None:
        for stop in plan.stops:
            container = self._roster.live[stop.container_id]
            timeout = self._deployment(container.deployment_id).config.timeout
            grace = IDLE_GRACE if stop.idle else timeout or MAX_TIMEOUT
            self._fleet.stop(container, grace, f"made room for {self._deployment(stop.to).title}", now)
        for deployment_id, wait in plan.waits.items():
            reason = f"{wait.reason}; room is being made" if wait.coming else wait.reason
            self._troubles.no_room(deployment_id, reason, never=wait.never)
        for start in plan.starts:
            if start.deployment_id not in plan.waits:
                self._troubles.room(start.deployment_id)
            self._insert(start, now)
            self._starts += 1
            self._served[start.deployment_id] = self._starts
        for agent_id in dict.fromkeys(start.agent_id for start in plan.starts):
            self._roster.tell(agent_id)

    def _insert(self, start: Start, now: float) -> None:
        deployment = self._deployment(start.deployment_id)
        starting = sum(c.status is S.STARTING for c in self._roster.of(deployment.id))
        token = self._secret()
        container = Container(
            id=f"taskqueue-{deployment.id}-{self._suffix()}",
            workspace_id=deployment.workspace_id,
            deployment_id=deployment.id,
            agent_id=start.agent_id,
            status=S.STARTING,
            token_hash=token_hash(token),
            created_at=now,
            lease_until=now + START_SECONDS,
            for_task=self._store.waiting_at(deployment.id, now, starting),
            gpus=start.gpus,
        )
        self._make_volumes(deployment, now)
        self._roster.insert(container, token, self._secrets(deployment))

    # what to say

    def why(self, deployment_id: str, now: float) -> str:
        """Why a waiting task of this deployment does not run yet, in one line."""
        if self._fleet.draining:
            return "the server is shutting down; it runs after the next start"
        if not self._deployment(deployment_id).active:
            return "its deployment is stopped"
        trouble = self._troubles.why(deployment_id, now)
        if trouble:
            return trouble
        containers = self._roster.of(deployment_id)
        if any(c.status is S.STARTING for c in containers):
            return "a container is starting"
        if containers:
            return "every child is busy with tasks ahead of it"
        return "no container yet"

    def unschedulable(self, deployment: Deployment) -> str:
        """Why no machine of this cluster can ever take a container of it; "" if one can, or none is connected."""
        found = place(deployment.config, self._roster.machines())
        return found.reason if found.never else ""


def _warm_seconds(deployment: Deployment) -> float:
    """How long a warm-up counts."""
    return deployment.config.keep_warm_seconds or WARM_SECONDS
