"""Routes of images: build one, list those on the machines, remove those that nothing uses."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.response import Stream

from treadle.model.api import BuildEvent, BuildRequest, ImageView, Pruned, PruneRequest
from treadle.model.container import Role
from treadle.model.deployment import check_image
from treadle.model.errors import InvalidInput, TreadleError
from treadle.model.ids import iso
from treadle.model.wire import ImageHere
from treadle.server.house import House
from treadle.server.requests import AnyRequest, decode_body

LINES = "application/x-ndjson"


class Images(Controller):
    tags = ("images",)

    @post("/v2/images", status_code=200, takes=BuildRequest, gives=LINES)
    async def build(self, request: AnyRequest, house: NamedDependency[House]) -> Stream:
        """Build an image or find it; JSON lines of build events, the last one with the id or the error."""
        caller = house.caller(request, Role.DEPLOY)
        spec = check_image((await decode_body(request, BuildRequest, house.max_definition)).spec)
        if spec.context_id and not house.reader.has_source(caller.workspace_id, spec.context_id):
            raise InvalidInput("The context of the Dockerfile was never uploaded.", "PUT it to /v2/sources first.")
        return Stream(_lines(house.builds.build(spec)), media_type=LINES)

    @get("/v2/images")
    async def list(self, request: AnyRequest, house: NamedDependency[House]) -> list[ImageView]:
        """The images on the machines, the last used first."""
        caller = house.caller(request, Role.READ)
        found = await house.shelves.images()
        uses = _uses(house, caller.workspace_id)
        return [_view(house, agent_id, image, uses.get(image.id, [])) for agent_id, image in found]

    @post("/v2/images/prune", status_code=200, takes=PruneRequest)
    async def prune(self, request: AnyRequest, house: NamedDependency[House]) -> Pruned:
        """Remove images that no active deployment has, and none of whose containers or tasks is there."""
        caller = house.caller(request, Role.ADMIN)
        asked = await decode_body(request, PruneRequest, house.settings.max_body)
        keep = sorted(_uses(house, caller.workspace_id))
        removed = await house.shelves.prune(keep, dry_run=asked.dry_run)
        views = [_view(house, agent_id, image, []) for agent_id, image in removed]
        return Pruned(views, sum(view.freed for view in views), asked.dry_run)


async def _lines(events: AsyncIterator[BuildEvent]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield msgspec.json.encode(event) + b"\n"
    except TreadleError as error:
        yield msgspec.json.encode(BuildEvent(error=str(error))) + b"\n"


def _uses(house: House, workspace_id: int) -> dict[str, list[str]]:
    """Who uses which image: active versions of names, and whatever waits or runs. Other workspaces are not named."""
    uses: dict[str, list[str]] = {}

    def note(image_id: str, owner: int, label: str) -> None:
        named = uses.setdefault(image_id, [])
        label = label if owner == workspace_id else "another workspace"
        if label not in named:
            named.append(label)

    for use in house.reader.image_uses():
        note(use.image_id, use.workspace_id, f"{use.name} v{use.version}")
    engine = house.bridge.engine
    busy = {container.deployment_id for container in list(engine.roster.live.values())}
    busy |= engine.hints.counts.unfinished_ids()
    for deployment in map(house.lookup.by_id, busy):
        name, handler = deployment.name, deployment.config.handler
        label = f"{name} v{deployment.version}" if name else f"draft {handler}"
        note(deployment.image_id, deployment.workspace_id, label)
    return uses


def _view(house: House, agent_id: str, image: ImageHere, used_by: list[str]) -> ImageView:
    agent = house.bridge.engine.roster.agents.get(agent_id)
    return ImageView(
        id=image.id,
        machine=agent.hostname if agent else agent_id,
        python=image.python,
        packages=image.packages,
        base_image=image.base_image,
        size=image.size,
        freed=image.freed,
        created_at=iso(image.built_at),
        last_used=iso(image.used_at),
        used_by=used_by,
    )
