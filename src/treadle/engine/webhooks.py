"""Webhook deliveries: which are due, what is sent, and what follows from each try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from urllib.parse import urlsplit

import msgspec

from treadle.engine.signing import webhook_headers
from treadle.model.task import Delivery, Task, TaskStatus
from treadle.rules.addresses import check_address
from treadle.rules.delivery import Outcome, after_try, explain
from treadle.store.base import Store

# The server imports the engine and nothing below it but the model.
__all__ = ["PER_HOST", "Outcome", "Send", "Webhooks", "check_address", "explain", "host_of"]

PER_HOST = 4  # tries at once to one host
FIRST_LOOK = 256  # rows looked at for due deliveries, …
LAST_LOOK = 16_384  # … and at most, when a few hosts hold up many


class Send(msgspec.Struct, frozen=True):
    """One try to make: POST `body` with `headers` to `url`, chosen by whom one trusts or not."""

    delivery: Delivery
    url: str
    body: bytes
    headers: dict[str, str]
    trusted: bool = False


class Webhooks:
    """Verbs on deliveries. They run inside the caller's transaction; `due` only reads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def due(self, now: float, limit: int, underway: Collection[str] = ()) -> list[Send]:
        """The next tries, oldest due first, signed at `now`.

        `underway` are ids of deliveries being tried at the moment: not given again, but counted, for together they
        are at most PER_HOST to one host. A host that does not answer so holds up nobody else.
        """
        sends = []
        for delivery in self._fair(now, limit, underway):
            if (send := self._send(delivery, now)) is not None:
                sends.append(send)
        return sends

    def record(self, delivery: Delivery, outcome: Outcome, now: float, chance: float) -> Delivery:
        """Write down how a try ended; returns the delivery as it is now. `chance` in [0, 1) is the jitter."""
        after = after_try(delivery, outcome, now, chance)
        self._store.update_delivery(after)
        return after

    def _fair(self, now: float, limit: int, underway: Collection[str]) -> list[Delivery]:
        look = FIRST_LOOK
        while True:
            rows = self._store.due_deliveries(now, look)
            chosen = _choose(rows, limit, underway)
            if len(chosen) >= limit or len(rows) < look or look >= LAST_LOOK:
                return chosen
            look *= 8

    def _send(self, delivery: Delivery, now: float) -> Send | None:
        task = self._store.task(delivery.task_id)
        workspace = None if task is None else self._store.workspace(task.workspace_id)
        if task is None or workspace is None:
            return None  # pruned since the rows were read: nothing is left to tell
        body = self._body(task)
        headers = webhook_headers(
            workspace.signing_key,
            message_id=delivery.id, task_id=task.id, status=task.status.value, body=body, timestamp=int(now),
        )
        return Send(delivery, delivery.url, body, headers, task.callback_trusted)

    def _body(self, task: Task) -> bytes:
        """The result as the child wrote it, so that the body is the same bytes on every try."""
        result = self._store.result(task.id) if task.status is TaskStatus.COMPLETE else None
        return b'{"data": ' + (b"{}" if result is None else result) + b"}"


def _choose(rows: list[Delivery], limit: int, underway: Collection[str]) -> list[Delivery]:
    busy = Counter(host_of(row.url) for row in rows if row.id in underway)
    chosen: list[Delivery] = []
    for row in rows:
        if len(chosen) >= limit:
            break
        host = host_of(row.url)
        if row.id not in underway and busy[host] < PER_HOST:
            busy[host] += 1
            chosen.append(row)
    return chosen


def host_of(url: str) -> str:
    """The host that a URL names, in lower case; the URL itself when it names none."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url
