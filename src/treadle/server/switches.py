"""Routes that show deployments, switch them off and on, and take them away."""

from __future__ import annotations

import time
from typing import Annotated

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from treadle.engine.switch import Which
from treadle.engine.writer import Verb
from treadle.model.api import DeploymentPage, DeploymentView
from treadle.model.container import Role
from treadle.model.deployment import Deployment
from treadle.server.auth import Caller
from treadle.server.house import House
from treadle.server.requests import MAX_LIMIT, AnyRequest

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]


class Switches(Controller):
    """The newest first; a deployment that was deleted is not shown any more."""

    tags = ("deployments",)

    @get("/v2/deployments")
    async def many(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        name: FromQuery[str] = "",
        active: FromQuery[bool | None] = None,
        limit: Limit = 100,
    ) -> DeploymentPage:
        """Deployments, of one name if it is given; `active` leaves stopped ones out, or shows them alone."""
        caller = house.caller(request, Role.READ)
        return DeploymentPage(_found(house, caller, name, active, limit))

    @get("/api/v1/deployment/{workspace:str}")
    async def of_workspace(  # noqa: PLR0917 - the framework passes query parameters by name
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        workspace: FromPath[str],
        name: FromQuery[str] = "",
        active: FromQuery[bool | None] = None,
        limit: Limit = 100,
    ) -> list[DeploymentView]:
        """The same as a plain list, for clients of Beam."""
        caller = house.caller(request, Role.READ, workspace=workspace)
        return _found(house, caller, name, active, limit)

    @get(["/v2/deployments/{deployment_id:str}", "/api/v1/deployment/{workspace:str}/{deployment_id:str}"])
    async def one(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        deployment_id: FromPath[str],
        workspace: FromPath[str] = "",
    ) -> DeploymentView:
        """One deployment, drafts included."""
        caller = house.caller(request, Role.READ, workspace=workspace)
        return house.views.deployment(house.lookup.in_workspace(caller.workspace_id, deployment_id), time.time())

    @post(
        ["/v2/deployments/{deployment_id:str}/stop", "/api/v1/deployment/{workspace:str}/stop/{deployment_id:str}"],
        status_code=200,
    )
    async def stop(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        deployment_id: FromPath[str],
        workspace: FromPath[str] = "",
    ) -> DeploymentView:
        """Take no tasks and run none; those that wait go on waiting."""
        return await _switch(request, house, house.bridge.engine.switch.stop, deployment_id, workspace)

    @post(
        ["/v2/deployments/{deployment_id:str}/start", "/api/v1/deployment/{workspace:str}/start/{deployment_id:str}"],
        status_code=200,
    )
    async def start(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        deployment_id: FromPath[str],
        workspace: FromPath[str] = "",
    ) -> DeploymentView:
        """Take and run tasks again, also after failed starts."""
        return await _switch(request, house, house.bridge.engine.switch.start, deployment_id, workspace)

    @delete(
        ["/v2/deployments/{deployment_id:str}", "/api/v1/deployment/{workspace:str}/{deployment_id:str}"],
        status_code=200,
    )
    async def delete(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        deployment_id: FromPath[str],
        workspace: FromPath[str] = "",
    ) -> DeploymentView:
        """Take it away for good; what waits in it is cancelled."""
        return await _switch(request, house, house.bridge.engine.switch.delete, deployment_id, workspace)


def _found(house: House, caller: Caller, name: str, active: bool | None, limit: int) -> list[DeploymentView]:
    found = [d for d in house.reader.deployments(caller.workspace_id, name) if active in (None, d.active)]
    return [house.views.deployment(deployment, time.time()) for deployment in found[:limit]]


async def _switch(
    request: AnyRequest, house: House, verb: Verb[Which, Deployment], deployment_id: str, workspace: str
) -> DeploymentView:
    caller = house.caller(request, Role.DEPLOY, workspace=workspace)
    after = await house.bridge.ask(verb, Which(caller.workspace_id, deployment_id))
    house.lookup.changed(after)
    return house.views.deployment(after, time.time())
