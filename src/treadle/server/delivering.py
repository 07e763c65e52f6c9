"""Keeps webhooks going: which are tried now, how many at once, and what sends them, loaded with the first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from treadle.engine.webhooks import PER_HOST, Outcome, Send, explain, host_of
from treadle.lines import Logger
from treadle.model.errors import TreadleError
from treadle.model.task import Delivery

if TYPE_CHECKING:
    from treadle.server.sender import Sender

AT_ONCE = 32
log = Logger()


class LateSender:
    """A `Sender` that is loaded with its first webhook: it takes 3 MB, which many servers never need.

    `allowed` is what a `Sender` is made with.
    """

    def __init__(self, **allowed: bool) -> None:
        self._allowed = allowed
        self._sender: Sender | None = None
        self._loading = asyncio.Lock()

    async def send(self, send: Send) -> Outcome:
        """See `Sender.send`."""
        async with self._loading:
            if self._sender is None:  # the event loop goes on meanwhile
                module = await asyncio.to_thread(import_module, "treadle.server.sender")
                self._sender = module.Sender(**self._allowed)
        return await self._sender.send(send)

    async def close(self) -> None:
        if self._sender is not None:
            await self._sender.close()


class Take(Protocol):
    """`Webhooks.due` as the loop calls it: at most `limit` tries, none of those `underway`."""

    async def __call__(self, limit: int, underway: frozenset[str]) -> list[Send]: ...


class Record(Protocol):
    """`Webhooks.record` as the loop calls it; returns when it is on disk."""

    async def __call__(self, delivery: Delivery, outcome: Outcome) -> object: ...


class DeliveryLoop:
    """Keeps due deliveries going: at most AT_ONCE, PER_HOST to one host, each delivery once at a time.

    Its owner calls `tick` each second and whenever a commit has written a delivery. A try that ends makes room for
    the next by itself. One whose end cannot be written down (a full disk) keeps its place: each tick tries to write
    that down, and nothing is sent twice for it.
    """

    def __init__(self, send: Callable[[Send], Awaitable[Outcome]], take: Take, record: Record) -> None:
        self._send = send
        self._take = take
        self._record = record
        self._underway: dict[str, str] = {}  # host by delivery id
        self._unwritten: dict[str, tuple[Send, Outcome]] = {}  # by delivery id; underway still
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking = False
        self._again = False
        self._closed = False

    @property
    def underway(self) -> frozenset[str]:
        """Ids of the deliveries that are being tried, or whose last try is not written down yet."""
        return frozenset(self._underway)

    async def tick(self) -> None:
        """Start as many due tries as there is room for; does not wait for them."""
        if self._taking:
            self._again = True  # what was committed since the look began is not to be missed
            return
        self._taking, self._again = True, False
        try:
            await self._fill()
        finally:
            self._taking = False
        if self._again and not self._closed:
            self._spawn(self._refill())

    async def close(self, grace: float = 5.0) -> None:
        """Let tries end within `grace` seconds, then drop them: they are still due at the next start."""
        self._closed = True
        self._write_again()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _write_again(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        for send, outcome in unwritten.values():
            self._spawn(self._write(send, outcome, again=True))

    async def _fill(self) -> None:
        self._write_again()
        room = AT_ONCE - len(self._underway)
        if room <= 0 or self._closed:
            return
        for send in await self._take(room, self.underway):
            if self._room_for(send):
                self._underway[send.delivery.id] = host_of(send.url)
                self._spawn(self._try(send))

    def _room_for(self, send: Send) -> bool:
        """The promise of this class, whatever `take` gave."""
        if self._closed or len(self._underway) >= AT_ONCE or send.delivery.id in self._underway:
            return False
        return list(self._underway.values()).count(host_of(send.url)) < PER_HOST

    async def _try(self, send: Send) -> None:
        try:
            outcome = await self._send(send)
        except Exception:
            # One delivery's trouble must not end the loop. It stays due: the next tick, not this one, tries again.
            log.exception("webhook not sent", delivery=send.delivery.id, task=send.delivery.task_id)
            del self._underway[send.delivery.id]
            return
        except asyncio.CancelledError:
            del self._underway[send.delivery.id]
            raise
        _tell(send, outcome)
        await self._write(send, outcome)

    async def _write(self, send: Send, outcome: Outcome, *, again: bool = False) -> None:
        written = False
        try:
            await self._record(send.delivery, outcome)
            written = True
        except Exception as error:  # noqa: BLE001 - told, and tried again
            if not again:
                _tell_unwritten(send, error)
        finally:
            if written or self._closed:
                del self._underway[send.delivery.id]
            else:
                self._unwritten[send.delivery.id] = send, outcome
        if written:
            await self._refill()

    async def _refill(self) -> None:
        try:
            await self.tick()
        except TreadleError as error:
            log.error("due webhooks not read", error=str(error))
        except Exception:
            log.exception("due webhooks not read")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the event loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)


def _tell_unwritten(send: Send, error: Exception) -> None:
    """Say once of each try; it is not told again each second."""
    delivery, task = send.delivery.id, send.delivery.task_id
    if isinstance(error, TreadleError):  # a full disk, say
        log.error("webhook not recorded", delivery=delivery, task=task, error=str(error))
    else:
        log.exception("webhook not recorded", delivery=delivery, task=task)


def _tell(send: Send, outcome: Outcome) -> None:
    """Say once of each webhook that its receiver did not take it, or why it may not go there."""
    if send.delivery.tries == 0 and (why := explain(outcome)):
        log.info("webhook not taken", task=send.delivery.task_id, host=host_of(send.url), why=why)
