"""The route of those who wait for a result: bare ASGI, the raw JSON of the result and nothing of the record."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from treadle.engine.face import Reader
from treadle.model.container import Role
from treadle.model.errors import InvalidInput, TreadleError
from treadle.model.task import FINAL
from treadle.server.asgi import Receive, Scope, Send, error_body, header, reply
from treadle.server.auth import Doors
from treadle.server.bridge import Bridge
from treadle.server.tasks import MAX_WAIT, find, until_final

ROUTE = "/v2/task/{task_id}/result"
PATH = re.compile(ROUTE.replace("{task_id}", "([^/]+)") + "/?")


class Results:
    """GET /v2/task/{task_id}/result?wait=SECONDS."""

    routes = frozenset({f"GET {ROUTE}"})

    def __init__(self, bridge: Bridge, reader: Reader, doors: Doors) -> None:
        self._bridge = bridge
        self._reader = reader
        self._doors = doors

    def serves(self, scope: Scope) -> bool:
        return scope["method"] == "GET" and PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await reply(send, 200, await self._answer(scope))
        except TreadleError as error:
            await reply(send, error.status, error_body(error))

    async def _answer(self, scope: Scope) -> bytes:
        caller = self._doors.require(header(scope, b"authorization"), Role.READ, container=True)
        match = PATH.fullmatch(scope["path"])
        assert match is not None, "serves() comes first"
        wait = _wait(scope)
        task = find(self._reader, caller.workspace_id, match[1])
        if wait and task.status not in FINAL:
            await until_final(self._bridge, self._reader, task.id, wait)
            self._doors.still(caller)
            task = find(self._reader, caller.workspace_id, task.id)
        result = self._reader.result(task.id)
        return b'{"status":"%s","result":%s}' % (task.status.value.encode(), b"null" if result is None else result)


def _wait(scope: Scope) -> float:
    given = parse_qs(scope["query_string"].decode("latin-1")).get("wait", ["0"])[-1]
    try:
        wait = float(given)
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= MAX_WAIT:
        raise InvalidInput(f"wait={given[:32]!r} is not allowed.", f"Allowed: seconds from 0 to {MAX_WAIT:.0f}.")
    return wait
