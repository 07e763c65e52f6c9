"""Routes that make a deployment: source, definition; and the workspace's own page."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time

import msgspec
from litestar import get, head, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from treadle.engine.catalog import Deploy, NewSource
from treadle.engine.face import Upload
from treadle.engine.outputs import source_key
from treadle.model.api import Deployed, DeployRequest, WorkspaceView
from treadle.model.api_workspace import KeyView
from treadle.model.container import Container, Role
from treadle.model.deployment import Deployment, QueueConfig, check_config, check_image, check_name, spec_digest
from treadle.model.errors import Forbidden, InvalidInput, NotFound
from treadle.model.ids import uuid7
from treadle.server.auth import Caller
from treadle.server.house import House
from treadle.server.requests import AnyRequest, decode_body, take_in
from treadle.server.switches import Switches
from treadle.server.views import workspace_view

MAX_SOURCE = 1024 * 1024 * 1024  # bytes
SHA256 = re.compile(r"[0-9a-f]{64}")


class Deployments(Switches):
    """Those that make a deployment, and those that switch one, as one controller: they share a path."""

    @head("/v2/sources/{source_id:str}")
    async def known(self, request: AnyRequest, house: NamedDependency[House], source_id: FromPath[str]) -> None:
        """Whether this source was uploaded before."""
        caller = house.caller(request, Role.DEPLOY)
        if not house.reader.has_source(caller.workspace_id, _checked_id(source_id)):
            raise NotFound(f"Source {source_id} was never uploaded.")

    @put("/v2/sources/{source_id:str}", status_code=201, takes=bytes)
    async def upload(self, request: AnyRequest, house: NamedDependency[House], source_id: FromPath[str]) -> None:
        """Store a packed source under the sha256 of its bytes."""
        caller = house.caller(request, Role.DEPLOY)
        upload = house.blob.start(source_key(_checked_id(source_id)))
        try:
            digest = hashlib.sha256()
            await take_in(request, upload, MAX_SOURCE, digest.update)
            if digest.hexdigest() != source_id:
                raise InvalidInput(f"The bytes have sha256 {digest.hexdigest()}, not {source_id}.", "Upload again.")
            async with house.shield.storing:
                await _store(house, upload, NewSource(caller.workspace_id, source_id, upload.size))
        finally:
            upload.abort()

    @get("/v2/sources/{source_id:str}", gives="application/zip")
    async def download(self, request: AnyRequest, house: NamedDependency[House], source_id: FromPath[str]) -> Stream:
        """The packed source, for agents."""
        house.doors.agent(request.headers.get("authorization", ""))
        key = source_key(_checked_id(source_id))
        size = house.blob.size(key)
        if size is None:
            raise NotFound(f"Source {source_id} was never uploaded.")
        headers = {"content-length": str(size)}
        return Stream(house.blob.read(key), media_type="application/zip", headers=headers)

    @post("/v2/deployments", status_code=200, takes=DeployRequest)
    async def deploy(self, request: AnyRequest, house: NamedDependency[House]) -> Deployed:
        """Make the next version of a name, or find or make a draft."""
        caller = house.caller(request, Role.DEPLOY, container=True)
        asked = await decode_body(request, DeployRequest, house.max_definition)
        if asked.name:
            check_name(asked.name)
        if caller.container is not None:
            asked = _from_inside(house, caller.container, asked)
        verb = Deploy(
            new_id=uuid7(time.time(), os.urandom(10)),
            workspace_id=caller.workspace_id,
            name=asked.name,
            config=check_config(asked.config),
            source_id=asked.source_id,
            image_id=asked.image_id,
            lender=_lender(house, caller),
        )
        made = await house.bridge.ask(house.bridge.engine.switch.deploy, verb)
        house.lookup.forget(caller.workspace_id, asked.name)
        return deployed(house, made.deployment, created=made.created)

    @get("/v2/workspace")
    async def workspace(self, request: AnyRequest, house: NamedDependency[House]) -> WorkspaceView:
        """The workspace this token belongs to."""
        caller = house.caller(request, Role.READ)
        return workspace_view(house.lookup.workspace(caller.workspace_id))

    @get(["/v2/workspace/signing-key", "/api/v1/token/{workspace:str}/signing-key"])
    async def signing_key(
        self, request: AnyRequest, house: NamedDependency[House], workspace: FromPath[str] = ""
    ) -> KeyView:
        """The key that webhooks are signed with."""
        caller = house.caller(request, Role.ADMIN, workspace=workspace)
        return KeyView(house.lookup.workspace(caller.workspace_id).signing_key)


async def _store(house: House, upload: Upload, source: NewSource) -> None:
    """Give the bytes of a source their name and then their row; without a row, those that were not there before go.

    One at a time: another's row may name the same bytes.
    """
    key = source_key(source.source_id)
    known = house.blob.size(key) is not None
    await asyncio.to_thread(upload.commit)
    try:
        await house.bridge.ask(house.bridge.engine.catalog.add_source, source)
    except Exception:
        if not known and not house.reader.has_source(source.workspace_id, source.source_id):
            await asyncio.to_thread(house.blob.delete, key)
        raise


def _checked_id(source_id: str) -> str:
    if not SHA256.fullmatch(source_id):
        raise InvalidInput(f"Source id {source_id[:80]!r} is not a sha256 in lower-case hex.")
    return source_id


def _from_inside(house: House, container: Container, asked: DeployRequest) -> DeployRequest:
    """What a container asks for, with its own source and with an image that exists: its own, or that of the spec.

    Raises:
        Forbidden: it asks for a name, another source, or an image that would have to be built, outside of it.
    """
    if asked.name:
        raise Forbidden("A container may use drafts only.", "Deploy from outside with a deploy token.")
    if asked.source_id or asked.image_id:
        what = "A container makes drafts of its own source, and of images by their definition."
        raise Forbidden(what, "Leave source_id and image_id out.")
    own = house.lookup.by_id(container.deployment_id)
    spec = msgspec.structs.replace(asked.config.image, context_id=own.config.image.context_id)
    if spec == own.config.image:  # a container cannot know the id of the context that its Dockerfile copied from
        config = msgspec.structs.replace(asked.config, image=spec)
        return DeployRequest(name="", config=config, source_id=own.source_id, image_id=own.image_id)
    image = house.reader.image(spec_digest(check_image(asked.config.image)))
    if image is None:
        what = "A container may use images that exist, and this one does not: a build runs outside of it."
        raise Forbidden(what, "Deploy a queue with this image first, or use the image of the calling one.")
    return msgspec.structs.replace(asked, source_id=own.source_id, image_id=image.id)


def _lender(house: House, caller: Caller) -> QueueConfig | None:
    """The definition of the container that asks; None for a caller who may use all secrets and volumes."""
    return house.lookup.by_id(caller.container.deployment_id).config if caller.container else None


def deployed(house: House, deployment: Deployment, *, created: bool) -> Deployed:
    """What whoever deploys is answered."""
    return Deployed(
        deployment_id=deployment.id,
        deployment_name=deployment.name,
        stub_id=deployment.id,
        version=deployment.version,
        invoke_url=house.views.invoke_url(deployment),
        workspace_id=house.lookup.workspace(deployment.workspace_id).external_id,
        image_id=deployment.image_id,
        source_id=deployment.source_id,
        authorized=deployment.config.authorized,
        created=created,
        warning=house.bridge.engine.scaler.unschedulable(deployment),
    )
