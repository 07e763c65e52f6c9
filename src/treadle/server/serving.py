"""Routes of `treadle serve`: serve a definition, replace it, end it, and follow what its tasks print meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from functools import partial

import msgspec
from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from treadle.engine.catalog import Deploy
from treadle.engine.serving import EndServe, Reload, not_served
from treadle.model.api import Deployed, ServeNews, ServeRequest, TaskEnd
from treadle.model.container import Role
from treadle.model.deployment import Deployment, check_config
from treadle.model.ids import uuid7
from treadle.server.deployments import deployed
from treadle.server.house import House
from treadle.server.logs import EVENTS, HEADERS, Cursor, Source, cursor_of, event, events
from treadle.server.requests import AnyRequest, decode_body


class Serving(Controller):
    tags = ("serve",)

    @post("/v2/serve", status_code=200, takes=ServeRequest)
    async def start(self, request: AnyRequest, house: NamedDependency[House]) -> Deployed:
        """Serve this definition under a URL of its own, until it is ended or nobody follows its log any more."""
        made = await _made(request, house)
        deployment = await house.bridge.ask(house.bridge.engine.serving.start, made)
        house.sessions.opened(deployment)
        return deployed(house, deployment, created=True)

    @put("/v2/serve/{deployment_id:str}", takes=ServeRequest)
    async def reload(
        self, request: AnyRequest, house: NamedDependency[House], deployment_id: FromPath[str]
    ) -> Deployed:
        """Replace what is served. Containers with the code before work on until one with the new code is ready."""
        verb = Reload(deployment_id, await _made(request, house))
        deployment = await house.bridge.ask(house.bridge.engine.serving.reload, verb)
        house.lookup.changed(deployment)
        return deployed(house, deployment, created=False)

    @delete("/v2/serve/{deployment_id:str}", status_code=200)
    async def end(self, request: AnyRequest, house: NamedDependency[House], deployment_id: FromPath[str]) -> None:
        """Serve it no more: its containers end, and its waiting tasks are cancelled."""
        caller = house.caller(request, Role.DEPLOY)
        verb = EndServe(caller.workspace_id, deployment_id)
        house.lookup.changed(await house.bridge.ask(house.bridge.engine.serving.end, verb))
        house.sessions.forget(deployment_id)

    @get("/v2/serve/{deployment_id:str}/logs", gives=EVENTS)
    async def log(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        deployment_id: FromPath[str],
        cursor: FromQuery[str] = "",
    ) -> Stream:
        """Server-sent events from the beginning: `line`, `task` for each that ended, `news` of containers, `end`."""
        caller = house.caller(request, Role.DEPLOY)
        deployment = house.lookup.in_workspace(caller.workspace_id, deployment_id)
        if not deployment.served:
            raise not_served(deployment_id)
        start = cursor_of(cursor or request.headers.get("last-event-id", ""))
        return Stream(_followed(house, deployment, start), media_type=EVENTS, headers=HEADERS)


async def _made(request: AnyRequest, house: House) -> Deploy:
    caller = house.caller(request, Role.DEPLOY)
    asked = await decode_body(request, ServeRequest, house.max_definition)
    return Deploy(
        new_id=uuid7(time.time(), os.urandom(10)),
        workspace_id=caller.workspace_id,
        name="",
        config=check_config(asked.config),
        source_id=asked.source_id,
        image_id=asked.image_id,
    )


async def _followed(house: House, deployment: Deployment, start: Cursor) -> AsyncIterator[bytes]:
    def over() -> bool:
        now = house.reader.deployment(deployment.id)
        return now is None or not now.served

    read, told = partial(house.reader.deployment_log, deployment.id), partial(_told, house)
    source = Source(deployment.id, read, over, told, partial(_ready, house, deployment.id))
    house.sessions.follow(deployment)
    try:
        async for block in events(source, house.bridge, start):
            yield block
    finally:
        house.sessions.unfollow(deployment, over=over())


def _ready(house: House, deployment_id: str) -> list[tuple[str, str]]:
    """The containers of its newest code that are ready already."""
    engine, now = house.bridge.engine, time.time()
    ready = (c for c in engine.roster.of(deployment_id) if engine.fleet.loaded_at(c, now) is not None)
    return [("ready", container.id) for container in ready if not engine.roster.outdated(container)]


def _told(house: House, kind: str, text: str) -> bytes:
    """What has happened beside lines: a task has ended, a container is ready or has failed to be."""
    if kind == "ended":
        return b""  # the end of the stream says so
    if kind != "task":
        return event("news", msgspec.json.encode(ServeNews(kind, text)))
    task = house.reader.task(text)
    if task is None:
        return b""
    ran = task.ended_at - task.started_at if task.ended_at and task.started_at else None
    reason = task.failure.reason if task.failure else ""
    return event(kind, msgspec.json.encode(TaskEnd(task.id, task.status.value, reason, ran)))
