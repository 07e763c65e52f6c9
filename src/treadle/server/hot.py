"""What a request to a queue asks for, from its path and body to the verb and the answer's bytes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from treadle.engine.face import Payload, payload, payloads
from treadle.engine.queue import Submit
from treadle.model.api import Accepted, AcceptedMany
from treadle.model.container import Role
from treadle.model.deployment import Deployment
from treadle.model.errors import Forbidden, InvalidInput, NotFound, TooLarge, TreadleError, Unavailable
from treadle.model.ids import uuid7s
from treadle.server.asgi import Receive, Scope, Send, failure, header, reply
from treadle.server.auth import Caller, Doors
from treadle.server.bridge import Bridge
from treadle.server.lookup import Lookup

PREFIX = "/taskqueue/"
_encode = msgspec.json.Encoder().encode

Told = Callable[[int, bytes], None]  # the status and the body of an answer


BATCH = "/batch"
WARMUP = "/warmup"
NAMED, VERSION, BY_ID, PUBLIC = "{queue}", "{queue}/{version}", "id/{deployment_id}", "public/{deployment_id}"
# Every URL of a queue, behind PREFIX, and what may follow it: nothing else is let through; see test_doors.py.
FORMS: dict[str, tuple[str, ...]] = {
    NAMED: ("", BATCH, WARMUP),
    VERSION: ("", BATCH, WARMUP),
    BY_ID: ("", BATCH, WARMUP),
    PUBLIC: ("", BATCH),
}


class Aim(msgspec.Struct, frozen=True):
    """A queue, who may use it (None: anybody) and what for: "" to enqueue a task, else BATCH or WARMUP."""

    caller: Caller | None
    deployment: Deployment
    wish: str


class Enqueue:
    """POST /taskqueue/{name}[/latest|/v{n}], /taskqueue/id/{id} and /taskqueue/public/{id}.

    Each also with /batch, and all but the last with /warmup. `aim` takes a request's head, `ask` its body; as an ASGI
    application it does both.
    """

    def __init__(
        self, bridge: Bridge, doors: Doors, lookup: Lookup, max_body: int, *, draining: Callable[[], bool]
    ) -> None:
        self.max_body = max_body
        self._bridge = bridge
        self._doors = doors
        self._lookup = lookup
        self._draining = draining
        self.routes = {f"POST {PREFIX}{form}{wish}" for form, wishes in FORMS.items() for wish in wishes}

    def serves(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path.startswith(PREFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['method']} is not for queues.", "POST a JSON object.")
            aim = self.aim(scope["path"], header(scope, b"authorization"))
            body = await read_body(scope, receive, self.max_body)
            self.ask(aim, scope["query_string"], body, partial(_settle, answer))
            status, said = await answer
        except TreadleError as error:
            status, said = failure(error, scope["path"])
        await reply(send, status, said)

    def aim(self, path: str, authorization: str) -> Aim:
        """The queue of a path (with its escapes resolved) for the sender of this header.

        Raises:
            Unauthorized, Forbidden, NotFound, InvalidInput, or Unavailable while the server shuts down.
        """
        asked = path[len(PREFIX) :].rstrip("/")
        wish = BATCH if asked.endswith(BATCH) else WARMUP if asked.endswith(WARMUP) else ""
        parts = asked.removesuffix(wish).split("/")
        form = _form(parts)
        if form == PUBLIC and wish not in FORMS[PUBLIC]:
            raise NotFound("Public queues are not warmed up.", "Use /taskqueue/id/ID/warmup with a token.")
        caller = None if form == PUBLIC else self._doors.require(authorization, Role.SUBMIT, container=True)
        deployment = self._target(form, wish, parts, caller)
        if self._draining():
            raise Unavailable("The server is shutting down.", "Try again when it is back.")
        return Aim(caller, deployment, wish)

    def _target(self, form: str, wish: str, parts: list[str], caller: Caller | None) -> Deployment:
        if caller is None:
            return self._public(parts[1])
        if wish not in FORMS.get(form, ()):
            path = PREFIX + "/".join(parts) + wish
            raise NotFound(f"{path[:200]!r} is not a queue's URL.", "`treadle deploy` prints one.")
        if form == BY_ID:
            return self._lookup.in_workspace(caller.workspace_id, parts[1])
        return self._lookup.named(caller.workspace_id, *parts)

    def _public(self, deployment_id: str) -> Deployment:
        """Whoever has no token learns nothing of other queues, not even that they exist."""
        with suppress(NotFound):
            deployment = self._lookup.by_id(deployment_id)
            if deployment.deleted_at is None and not deployment.config.authorized:
                return deployment
        said = f"invalid stub id: no public queue has the id {deployment_id[:64]!r}."
        raise InvalidInput(said, "`treadle deploy` prints the URL of a queue that is declared with authorized=False.")

    def ask(self, aim: Aim, query: bytes, body: bytes, told: Told) -> None:
        """Do what is asked; `told` gets the answer once it is on disk.

        Raises:
            InvalidInput: the body is not what this takes.
            Forbidden: it names a webhook, which this container may not.
            Unauthorized: the token was revoked while the body came, or its container ended.
        """
        if aim.caller is not None:
            self._doors.still(aim.caller)
        engine = self._bridge.engine
        if not aim.wish:
            [task] = self._submits(aim, [payload(body, query.decode("latin-1"))])
            self._bridge.call(engine.queue.submit, task, partial(_answer, told, _accepted))
        elif aim.wish == BATCH:
            many = self._submits(aim, payloads(body))
            self._bridge.call(engine.queue.submit_many, many, partial(_answer, told, _accepted_many))
        else:
            self._bridge.call(engine.scaler.warm, aim.deployment, partial(_answer, told, _nothing))

    def _submits(self, aim: Aim, given: Sequence[Payload]) -> list[Submit]:
        noise = random.randbytes(10 * len(given))  # noqa: S311 - an id need not be a secret
        task_ids = uuid7s(time.time(), noise)
        if any(one.callback_url for one in given):
            self._check_choice(aim.caller)
        trusted = aim.caller is not None and aim.caller.may(Role.DEPLOY)
        return [
            Submit(task_id, aim.deployment, one.raw, one.callback_url, trusted)
            for task_id, one in zip(task_ids, given, strict=True)
        ]

    def _check_choice(self, caller: Caller | None) -> None:
        """Refuse a callback_url to strangers, and to a container without a network: it would be a way out."""
        if caller is None:
            said = "A request without a token may not choose a callback_url."
            raise InvalidInput(said, "Leave it out, and that of the queue's definition is called, or use a token.")
        container = caller.container
        if container is not None and self._lookup.by_id(container.deployment_id).config.block_network:
            said = "A container with block_network=True may not choose a callback_url: it would be a way out."
            raise Forbidden(said, "Declare callback_url in the definition of the queue.")


def _form(parts: list[str]) -> str:
    """Which of FORMS these are, "" for none."""
    match parts:
        case ["public", _]:
            return PUBLIC
        case ["id", _]:
            return BY_ID
        case [_]:
            return NAMED
        case [_, _]:
            return VERSION
    return ""


def _accepted(task_id: str) -> bytes:
    return _encode(Accepted(task_id))


def _accepted_many(task_ids: list[str]) -> bytes:
    return _encode(AcceptedMany(task_ids))


def _nothing(_: None) -> bytes:
    return b""


def _answer(told: Told, encode: Callable[[Any], bytes], answer: Any) -> None:
    if isinstance(answer, Exception):
        told(*failure(answer, PREFIX))
    else:
        told(200, encode(answer))


def _settle(future: asyncio.Future[tuple[int, bytes]], status: int, body: bytes) -> None:
    if not future.done():  # the client may have gone away
        future.set_result((status, body))


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
    check_size(int(declared) if declared.isdigit() else 0, limit)
    body, more = bytearray(), True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
        check_size(len(body), limit)
    if event["type"] == "http.disconnect":
        raise InvalidInput("The body was cut off.", "Send it again.")
    return bytes(body)


def check_size(size: int, limit: int) -> None:
    """Raises TooLarge: a body is, or says it will be, over `limit` bytes."""
    if size > limit:
        raise TooLarge(
            f"The body of {size} bytes is over the limit of {limit} bytes.",
            "Send a URL to the data instead, or raise max_body in config.toml.",
        )
