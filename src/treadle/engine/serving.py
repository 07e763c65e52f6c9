"""Verbs on what is served while it is written: one definition, replaced again and again under the same id."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from treadle.engine.catalog import Catalog, Deploy
from treadle.engine.effects import Outbox, Served
from treadle.engine.fleet import Fleet
from treadle.engine.roster import Roster
from treadle.engine.scaler import Scaler
from treadle.engine.trouble import Troubles
from treadle.model.container import ContainerStatus
from treadle.model.deployment import Deployment, DeploymentKind
from treadle.model.errors import NotFound, TreadleError
from treadle.store.base import Store

END_GRACE = 1.0  # seconds for what runs when somebody stops serving


class Reload(msgspec.Struct, frozen=True):
    """Newer code, or another definition, for what is served under this id. `made` has all the rest."""

    deployment_id: str
    made: Deploy


class EndServe(msgspec.Struct, frozen=True):
    workspace_id: int
    deployment_id: str


def not_served(deployment_id: str) -> NotFound:
    return NotFound(f"Nothing is served under {deployment_id[:64]!r} (any more).", "Run `treadle serve` again.")


class Serving:
    """A served deployment always has a container. After a reload the older ones work until a newer one is ready."""

    def __init__(
        self,
        *,
        store: Store,
        outbox: Outbox,
        catalog: Catalog,
        roster: Roster,
        fleet: Fleet,
        scaler: Scaler,
        troubles: Troubles,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._catalog = catalog
        self._roster = roster
        self._fleet = fleet
        self._scaler = scaler
        self._troubles = troubles

    def start(self, now: float, requests: Sequence[Deploy]) -> list[Deployment | TreadleError]:
        """Serve something new; its first container starts at once."""
        return [self._catalog.missing_part(made) or self._start(made, now) for made in requests]

    def _start(self, asked: Deploy, now: float) -> Deployment:
        # the digest is of nobody else: it is no draft that `.put()` could find
        deployment = asked.made(DeploymentKind.SERVE, asked.new_id, now)
        self._store.insert_deployment(deployment)
        self._scaler.watch([deployment])
        return deployment

    def reload(self, now: float, requests: Sequence[Reload]) -> list[Deployment | TreadleError]:
        """Have newer code take the place of what is served. A container of it that is not ready yet is given up."""
        return [self._catalog.missing_part(request.made) or self._reload(request, now) for request in requests]

    def _reload(self, request: Reload, now: float) -> Deployment | NotFound:
        found = self._served(request.made.workspace_id, request.deployment_id)
        if isinstance(found, NotFound):
            return found
        made = request.made
        after = replace(
            found, config=made.config, source_id=made.source_id, image_id=made.image_id, updated_at=now
        )
        self._catalog.rewrite(after)
        self._troubles.forget(after.id)
        for container in self._roster.of(after.id):
            if container.status is ContainerStatus.STARTING:
                self._fleet.dismiss(container, 0.0, "reloaded", now)
        self._scaler.watch([after])
        return after

    def end(self, now: float, requests: Sequence[EndServe]) -> list[Deployment | TreadleError]:
        """Serve this no more: its containers end, what waits is cancelled by and by."""
        return [self._end(request, now) for request in requests]

    def _end(self, request: EndServe, now: float) -> Deployment | NotFound:
        found = self._served(request.workspace_id, request.deployment_id)
        if isinstance(found, NotFound):
            return found
        after = replace(found, active=False, updated_at=now, deleted_at=now)
        self._catalog.switch(after)
        for container in self._roster.of(after.id):
            self._fleet.dismiss(container, END_GRACE, "no longer served", now)
        self._outbox.add(Served(after.id, "ended", ""))
        self._scaler.watch([after])
        return after

    def _served(self, workspace_id: int, deployment_id: str) -> Deployment | NotFound:
        found = self._store.deployment(deployment_id)
        if found is None or found.workspace_id != workspace_id or not found.served:
            return not_served(deployment_id)
        return found
