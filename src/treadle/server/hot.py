"""The enqueue route: bare ASGI that does no more than it must between the request and its commit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import msgspec

from treadle.engine.face import Payload, payload, payloads
from treadle.engine.queue import Submit
from treadle.model.api import Accepted, AcceptedMany
from treadle.model.container import Role
from treadle.model.deployment import Deployment
from treadle.model.errors import InvalidInput, NotFound, TooLarge, TreadleError, Unavailable
from treadle.model.ids import uuid7s
from treadle.server.asgi import Receive, Scope, Send, error_body, header, reply
from treadle.server.auth import Doors
from treadle.server.bridge import Bridge
from treadle.server.lookup import Lookup

PREFIX = "/taskqueue/"
BATCH = "/batch"
WARMUP = "/warmup"
_encode = msgspec.json.Encoder().encode


class Enqueue:
    """POST /taskqueue/{name}[/latest|/v{n}], /taskqueue/id/{id} and /taskqueue/public/{id}.

    Each also with /batch, and all but the last with /warmup.
    """

    def __init__(
        self, bridge: Bridge, doors: Doors, lookup: Lookup, max_body: int, *, draining: Callable[[], bool]
    ) -> None:
        self._bridge = bridge
        self._doors = doors
        self._lookup = lookup
        self._max_body = max_body
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await reply(send, 200, await self._accept(scope, receive))
        except TreadleError as error:
            await reply(send, error.status, error_body(error))

    async def _accept(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{scope['method']} is not for queues.", "POST a JSON object.")
        path = scope["path"][len(PREFIX) :].rstrip("/")
        if path.endswith(WARMUP):
            return await self._warm(path.removesuffix(WARMUP), scope)
        batch = path.endswith(BATCH)
        deployment = self._target(path.removesuffix(BATCH), scope)
        self._check_open()
        body = await read_body(scope, receive, self._max_body)
        self._doors.still(header(scope, b"authorization"))  # a body may take its time
        queue = self._bridge.engine.queue
        if batch:
            many = _submits(deployment, payloads(body))
            return _encode(AcceptedMany(await self._bridge.ask(queue.submit_many, many)))
        [one] = _submits(deployment, [payload(body, scope["query_string"].decode("latin-1"))])
        return _encode(Accepted(await self._bridge.ask(queue.submit, one)))

    async def _warm(self, path: str, scope: Scope) -> bytes:
        """Start a container without a task. The answer has no body."""
        if path.startswith("public/"):
            raise NotFound("Public queues are not warmed up.", "Use /taskqueue/id/ID/warmup with a token.")
        deployment = self._target(path, scope)
        self._check_open()
        await self._bridge.ask(self._bridge.engine.scaler.warm, deployment)
        return b""

    def _check_open(self) -> None:
        if self._draining():
            raise Unavailable("The server is shutting down.", "Try again when it is back.")

    def _target(self, path: str, scope: Scope) -> Deployment:
        parts = [unquote(part) for part in path.split("/")]
        if parts[0] == "public" and len(parts) == 2:
            return self._public(parts[1])
        caller = self._doors.require(header(scope, b"authorization"), Role.SUBMIT, container=True)
        match parts:
            case ["id", deployment_id]:
                return self._lookup.in_workspace(caller.workspace_id, deployment_id)
            case [name]:
                return self._lookup.named(caller.workspace_id, name)
            case [name, version]:
                return self._lookup.named(caller.workspace_id, name, version)
        raise NotFound(f"{scope['path'][:200]!r} is not a queue's URL.", "`treadle deploy` prints one.")

    def _public(self, deployment_id: str) -> Deployment:
        deployment = self._lookup.by_id(deployment_id)
        if deployment.deleted_at is not None:
            raise NotFound(f"No deployment has the id {deployment_id[:64]!r}.", "`treadle deploy` prints it.")
        if deployment.config.authorized:
            raise InvalidInput("invalid stub id: this queue is not public.", "Declare it with authorized=False.")
        return deployment


def _submits(deployment: Deployment, given: Sequence[Payload]) -> list[Submit]:
    noise = random.randbytes(10 * len(given))  # noqa: S311 - an id need not be a secret
    task_ids = uuid7s(time.time(), noise)
    return [
        Submit(task_id, deployment, one.raw, one.callback_url)
        for task_id, one in zip(task_ids, given, strict=True)
    ]


class MethodNotAllowed(TreadleError):
    """The route exists, but not for this method (HTTP 405)."""

    status = 405
    code = "method_not_allowed"


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is over `limit` bytes.
        InvalidInput: the client hung up in the middle.
    """
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(int(declared), limit)
    event = await receive()
    body: bytes = event.get("body", b"")
    while event.get("more_body"):
        event = await receive()
        body += event.get("body", b"")
        if len(body) > limit:
            raise _too_large(len(body), limit)
    if event["type"] == "http.disconnect":
        raise InvalidInput("The body was cut off.", "Send it again.")
    if len(body) > limit:
        raise _too_large(len(body), limit)
    return body


def _too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(
        f"The body of {size} bytes is over the limit of {limit} bytes.",
        "Send a URL to the data instead, or raise max_body in config.toml.",
    )
