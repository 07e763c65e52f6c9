"""Verbs that make deployments, switch them off and on again and take them away, and what becomes of their tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from treadle.engine.catalog import Catalog, Deploy, NewDeployment
from treadle.engine.hints import Hints
from treadle.engine.queue import Queue
from treadle.engine.scaler import Scaler
from treadle.engine.trouble import Troubles
from treadle.model.deployment import Deployment, DeploymentKind
from treadle.model.errors import NotFound, TreadleError
from treadle.model.task import WAITING, Change, TaskFilter
from treadle.rules import exits, lifecycle
from treadle.rules.lifecycle import Event
from treadle.store.base import Store

CLEAR_LIMIT = 500  # tasks cancelled in one transaction


class Which(msgspec.Struct, frozen=True):
    workspace_id: int
    deployment_id: str


class Switch:
    """A stopped deployment takes no tasks and runs none; those that wait in it go on waiting."""

    def __init__(
        self, *, store: Store, hints: Hints, queue: Queue, catalog: Catalog, scaler: Scaler, troubles: Troubles
    ) -> None:
        self._store = store
        self._hints = hints
        self._queue = queue
        self._catalog = catalog
        self._scaler = scaler
        self._troubles = troubles

    def deploy(self, now: float, requests: Sequence[Deploy]) -> list[NewDeployment | TreadleError]:
        """Make the next version of a name, which stands from then on, or find or make a draft."""
        answers = [self._catalog.make(request, now) for request in requests]
        self._scaler.watch([made.deployment for made in answers if isinstance(made, NewDeployment)])
        return answers

    def stop(self, now: float, requests: Sequence[Which]) -> list[Deployment | NotFound]:
        """Switch off: its containers stop, with some time for what runs in them."""
        return [self._switch(which, lambda d: replace(d, active=False, updated_at=now)) for which in requests]

    def start(self, now: float, requests: Sequence[Which]) -> list[Deployment | NotFound]:
        """Switch on again, and forget what kept it from starting before."""
        for which in requests:
            self._troubles.forget(which.deployment_id)
        return [self._switch(which, lambda d: replace(d, active=True, updated_at=now)) for which in requests]

    def delete(self, now: float, requests: Sequence[Which]) -> list[Deployment | NotFound]:
        """Take away for good: like `stop`, and what waits in it is cancelled by and by (see `clear`)."""

        def deleted(deployment: Deployment) -> Deployment:
            return replace(deployment, active=False, updated_at=now, deleted_at=now)

        return [self._switch(which, deleted) for which in requests]

    def _switch(self, which: Which, change: Callable[[Deployment], Deployment]) -> Deployment | NotFound:
        found = self._store.deployment(which.deployment_id)
        named = found is not None and found.kind is DeploymentKind.DEPLOYMENT and found.deleted_at is None
        if found is None or not named or found.workspace_id != which.workspace_id:
            advice = "`treadle deployment list` shows those there are."
            return NotFound(f"No deployment has the id {which.deployment_id[:64]!r}.", advice)
        after = change(found)
        self._catalog.switch(after)
        self._scaler.watch([after])
        return after

    def clear(self, now: float, requests: Sequence[None]) -> list[int]:
        """Cancel what waits in deleted deployments, at most CLEAR_LIMIT tasks of each. Answers how many."""
        changes: list[Change] = []
        for deployment_id, count in self._hints.counts.waiting.items():
            deployment = self._catalog.deployment(deployment_id) if count else None
            if deployment is not None and deployment.deleted_at is not None:
                changes += self._cancelled(deployment, now)
        return [len(self._queue.apply(changes))] * len(requests)

    def _cancelled(self, deployment: Deployment, now: float) -> list[Change]:
        which = TaskFilter(
            deployment.workspace_id, tuple(WAITING), deployment_ids=(deployment.id,), limit=CLEAR_LIMIT
        )
        tasks = self._store.tasks(which)
        changes = (lifecycle.decide(task, Event.CANCEL, now, failure=exits.DELETED) for task in tasks)
        return [change for change in changes if change is not None]
