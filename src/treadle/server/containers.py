"""Container routes: list, one, its log, stop."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from treadle.engine.fleet import StopContainer
from treadle.model.api import ContainerView, LogPage
from treadle.model.container import Container, ContainerStatus, Role
from treadle.model.errors import NotFound
from treadle.server.house import House
from treadle.server.logs import EVENTS, Limit, Source, answer
from treadle.server.requests import AnyRequest

MAX_GRACE = 86400
MAX_ENDED = 1000


class Containers(Controller):
    tags = ("containers",)

    @get("/v2/containers")
    async def many(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        ended: Annotated[int, QueryParameter(ge=0, le=MAX_ENDED)] = 0,
    ) -> list[ContainerView]:
        """Containers that are not stopped, newest first; with `ended=N` the newest N of any status."""
        caller = house.caller(request, Role.READ)
        found = house.reader.containers(caller.workspace_id, ended=ended)
        return [house.views.container(container) for container in found]

    @get("/v2/containers/{container_id:str}")
    async def one(
        self, request: AnyRequest, house: NamedDependency[House], container_id: FromPath[str]
    ) -> ContainerView:
        """A container, also one that has ended."""
        return house.views.container(_find(request, house, container_id))

    @get("/v2/containers/{container_id:str}/logs", gives=EVENTS, page=LogPage)
    async def log(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        container_id: FromPath[str],
        cursor: FromQuery[str] = "",
        limit: Limit = 1000,
    ) -> Response[LogPage] | Stream:
        """All that was printed in it, by tasks or not; as server-sent events for `Accept: text/event-stream`."""
        container = _find(request, house, container_id)

        def over() -> bool:
            now = house.reader.container(container.id)
            return now is None or now.status is ContainerStatus.STOPPED

        source = Source(container.id, partial(house.reader.container_log, container.id), over)
        return answer(request, source, house.bridge, cursor, limit)

    @post("/v2/containers/{container_id:str}/stop", status_code=200)
    async def stop(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        container_id: FromPath[str],
        grace: Annotated[float, QueryParameter(ge=0, le=MAX_GRACE)] = 10.0,
    ) -> ContainerView:
        """End a container; running tasks may finish for `grace` seconds, then they are retried elsewhere."""
        caller = house.caller(request, Role.DEPLOY)
        verb = StopContainer(caller.workspace_id, container_id, grace)
        await house.bridge.ask(house.bridge.engine.fleet.end, verb)
        return house.views.container(_find(request, house, container_id))


def _find(request: AnyRequest, house: House, container_id: str) -> Container:
    """Raises NotFound, also for a container of another workspace."""
    caller = house.caller(request, Role.READ)
    container = house.reader.container(container_id)
    if container is None or container.workspace_id != caller.workspace_id:
        advice = "`treadle container list --ended 20` shows the newest."
        raise NotFound(f"No container has the id {container_id[:128]!r}.", advice)
    return container
