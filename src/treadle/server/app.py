"""The application: bare routes in front, Litestar for all others, one error shape for both."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.datastructures import ResponseHeader
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin

from treadle.lines import Logger
from treadle.model.api import ErrorBody, Health
from treadle.model.errors import NotFound, TreadleError, sentence
from treadle.model.wire import AGENT_PATH, RUNNER_PATH
from treadle.server.asgi import ASGI, NO_SNIFF, Receive, Scope, Send, failure, reply
from treadle.server.backups import Backups
from treadle.server.containers import Containers
from treadle.server.deployments import Deployments
from treadle.server.hot import Enqueue
from treadle.server.house import House
from treadle.server.images import Images
from treadle.server.links import UNKNOWN, Links, turn_away
from treadle.server.openapi import Described
from treadle.server.outputs import Outputs
from treadle.server.requests import AnyRequest
from treadle.server.results import Results
from treadle.server.revoking import Revocable
from treadle.server.secrets import Secrets
from treadle.server.serving import Serving
from treadle.server.tasks import Tasks
from treadle.server.tokens import Tokens
from treadle.server.volumes import Volumes

CONTROLLERS = (
    Tasks, Deployments, Images, Outputs, Containers, Serving, Secrets, Tokens, Volumes, Backups,
)  # fmt: skip
CODES = {400: "invalid", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
ADVICE = "See /openapi.json for the routes and what they take."
MAX_SAID = 500  # characters of what the framework says
log = Logger()


class App:
    """The ASGI application. Queues and links never see the framework."""

    def __init__(self, house: House, version: str) -> None:
        self._rest = _litestar(house, version)
        self._others = Revocable(self._rest, house.doors)  # type: ignore[arg-type]
        self.enqueue = Enqueue(
            house.bridge, house.doors, house.lookup, house.settings.max_body, draining=house.draining
        )
        # Each says in `routes` what it serves, which test_doors.py tries: paths are matched there and nowhere else.
        self._bare = (self.enqueue, Results(house.bridge, house.reader, house.doors))
        links = Links(house.bridge, house.doors, house.builds, house.shelves)
        self._links: dict[str, ASGI] = {
            RUNNER_PATH: links.runner,
            AGENT_PATH: links.agent,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._link(scope, receive, send)
            return
        for bare in self._bare:
            if bare.serves(scope):
                await self._guarded(bare, scope, receive, send)
                return
        await self._others(scope, receive, send)

    @staticmethod
    async def _guarded(route: ASGI, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await route(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            await reply(send, *failure(error, scope["path"]))

    async def _link(self, scope: Scope, receive: Receive, send: Send) -> None:
        link = self._links.get(scope["path"])
        if link is None:
            await receive()
            said = f"No link is at {scope['path'][:200]}."
            await turn_away(scope, send, UNKNOWN, NotFound(said, ADVICE))
            return
        await link(scope, receive, send)


class _Rest(Litestar):
    """Litestar without its plugins for pydantic, attrs and others, which load whatever is installed: 11 MB."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def _litestar(house: House, version: str) -> Litestar:
    @get("/health", tags=("server",))
    async def health() -> Response[Health]:
        """Whether the server takes work."""
        draining = house.draining()
        body = Health("draining" if draining else "ok", version, os.getpid())
        return Response(body, status_code=503 if draining else 200)

    def give_house() -> House:
        return house

    return _Rest(
        route_handlers=[health, *CONTROLLERS],
        dependencies={"house": Provide(give_house, sync_to_thread=False)},
        exception_handlers={TreadleError: _told, HTTPException: _refused, Exception: _told},
        openapi_config=OpenAPIConfig(
            title="Treadle", version=version, path="/openapi.json", render_plugins=[Described()]
        ),
        response_headers=[ResponseHeader(name=NO_SNIFF[0], value=NO_SNIFF[1])],
        request_max_body_size=None,  # streamed bodies have limits of their own
        logging_config=None,
        debug=False,
    )


def _answer(status: int, body: bytes) -> Response[bytes]:
    return Response(body, status_code=status, media_type=MediaType.JSON, headers=dict([NO_SNIFF]))


def _path(request: AnyRequest) -> str:
    """As it came; the framework's `url` has the Host header in it too, which may be anything."""
    return str(request.scope["path"])


def _told(request: AnyRequest, error: Exception) -> Response[bytes]:
    return _answer(*failure(error, _path(request)))


def _refused(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    if error.status_code == NotFound.status:
        said = f"Nothing is at {request.method} {_path(request)[:200]}."
        advice = ADVICE
    else:
        extra = "; ".join(_extra(item) for item in error.extra) if isinstance(error.extra, list) else ""
        said = sentence((extra or f"{error.detail} for {request.method} {_path(request)}")[:MAX_SAID])
        advice = ADVICE
    code = CODES.get(error.status_code, "invalid" if error.status_code < 500 else "internal")
    return _answer(error.status_code, msgspec.json.encode(ErrorBody(said, code, advice, said)))


def _extra(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    key, message = item.get("key", ""), str(item.get("message", ""))
    return f"{key}: {message[:1].lower()}{message[1:]}" if key else message
