"""Verbs on what tasks are made from: deployments, images, source, workspaces."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from treadle.engine.hints import Journal
from treadle.engine.secrets import Secrets
from treadle.engine.volumes import Volumes
from treadle.model.container import Workspace
from treadle.model.deployment import Deployment, DeploymentKind, Image, QueueConfig
from treadle.model.errors import Forbidden, InvalidInput, NotFound, TreadleError, listed
from treadle.model.rooted import needs_engine
from treadle.rules.lending import not_lent
from treadle.store.base import Store

DEFAULT_WORKSPACE = "default"
_sorted_json = msgspec.json.Encoder(order="sorted")


class Deploy(msgspec.Struct, frozen=True):
    """Make the next version of a name, or (name "") the draft with this definition.

    `lender`: the definition of the container that asks for a draft; a new one gets nothing that it has not.
    """

    new_id: str
    workspace_id: int
    name: str
    config: QueueConfig
    source_id: str
    image_id: str
    lender: QueueConfig | None = None

    def made(self, kind: DeploymentKind, digest: str, now: float, *, version: int = 0) -> Deployment:
        """The deployment that this asks for."""
        return Deployment(
            id=self.new_id,
            workspace_id=self.workspace_id,
            kind=kind,
            name=self.name,
            version=version,
            config=self.config,
            source_id=self.source_id,
            image_id=self.image_id,
            digest=digest,
            active=True,
            created_at=now,
            updated_at=now,
        )


class NewDeployment(msgspec.Struct, frozen=True):
    deployment: Deployment
    created: bool  # False: an equal draft existed


class NewSource(msgspec.Struct, frozen=True):
    workspace_id: int
    source_id: str
    size: int


class Catalog:
    """Definitions never change once they are written, but for switches and what is served; remembered by id."""

    def __init__(self, store: Store, secrets: Secrets, volumes: Volumes, journal: Journal) -> None:
        self._store = store
        self._secrets = secrets
        self._volumes = volumes
        self._journal = journal
        self._deployments: dict[str, Deployment] = {}
        self._images: dict[str, Image] = {}

    def deployment(self, deployment_id: str) -> Deployment:
        found = self._deployments.get(deployment_id)
        if found is None:
            found = self._store.deployment(deployment_id)
            if found is None:
                raise NotFound(f"Deployment {deployment_id} does not exist.")
            self._remember(found)
        return found

    def image(self, image_id: str) -> Image:
        found = self._images.get(image_id)
        if found is None:
            found = self._store.image_by_id(image_id)
            if found is None:
                raise NotFound(f"Image {image_id} does not exist.")
            self._journal.put(self._images, image_id, found)
        return found

    def make(self, request: Deploy, now: float) -> NewDeployment | TreadleError:
        """Write a new deployment, if all that it names is there; versions of a name count from 1."""
        return self.missing_part(request) or self._make(request, now)

    def missing_part(self, request: Deploy) -> TreadleError | None:
        """What a definition names and is not there."""
        if not self._store.has_source(request.workspace_id, request.source_id):
            return InvalidInput(f"Source {request.source_id!r} was never uploaded.", "PUT it to /v2/sources first.")
        if self._store.image_by_id(request.image_id) is None:
            return InvalidInput(f"Image {request.image_id!r} was never built.", "POST its spec to /v2/images first.")
        if why := needs_engine(request.config.image):
            asked = "block_network=True" if request.config.block_network else "gpu" if request.config.gpus else ""
            if asked:
                what = f"{asked} cannot be had with an image of Docker or Podman yet ({why})."
                return InvalidInput(what, "Leave one of the two out.")
        if missing := self._secrets.missing(request.workspace_id, request.config.secrets):
            advice = f"Create it with `treadle secret create {missing[0]}`, or remove it from secrets=[…]."
            return InvalidInput(f"Secret does not exist: {listed(missing)}.", advice)
        return None

    def _make(self, request: Deploy, now: float) -> NewDeployment | TreadleError:
        digest = _digest(request)
        if not request.name and (draft := self._store.draft(request.workspace_id, digest)):
            return NewDeployment(draft, created=False)
        if request.lender is not None and (others := not_lent(request.config, request.lender)):
            what = f"A container may not make a draft with what it has not itself: {listed(others)}."
            return Forbidden(what, "Deploy that queue by name, or declare the same in the one that calls it.")
        kind = DeploymentKind.DEPLOYMENT if request.name else DeploymentKind.DRAFT
        deployment = request.made(kind, digest, now, version=self._next_version(request))
        self._store.insert_deployment(deployment)
        self._volumes.make_all(deployment, now)
        return NewDeployment(deployment, created=True)

    def _next_version(self, request: Deploy) -> int:
        if not request.name:
            return 0
        return 1 + self._store.last_version(request.workspace_id, request.name)

    def switch(self, deployment: Deployment) -> None:
        """Write that a deployment is on, off or gone, as the new struct says."""
        self._store.switch_deployment(deployment)
        self._remember(deployment)

    def rewrite(self, deployment: Deployment) -> None:
        """Write what is served now under this id."""
        self._store.rewrite_served(deployment)
        self._remember(deployment)

    def _remember(self, deployment: Deployment) -> None:
        """Until a rollback: what was read may have been written in the same transaction."""
        self._journal.put(self._deployments, deployment.id, deployment)

    def put_image(self, now: float, requests: Sequence[Image]) -> list[None]:
        """Remember how a spec was resolved, so that it stays the same image."""
        for image in requests:
            self._store.put_image(msgspec.structs.replace(image, created_at=now))
        return [None] * len(requests)

    def add_source(self, now: float, requests: Sequence[NewSource]) -> list[None]:
        for source in requests:
            self._store.add_source(source.workspace_id, source.source_id, source.size, now)
        return [None] * len(requests)


def _digest(request: Deploy) -> str:
    parts = (request.config, request.source_id, request.image_id)
    return sha256(_sorted_json.encode(parts)).hexdigest()


def open_workspace(store: Store, new: Workspace) -> Workspace:
    """The workspace named like `new`: the one that is there, else `new`. Runs in a transaction of its own."""
    found = store.workspace_by_name(new.name)
    if found is not None:
        return found
    with store.transaction():
        return store.insert_workspace(new)
