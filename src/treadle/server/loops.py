"""Background duties: ticks that wake up, do a bounded amount of work, and go back to sleep."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice

from treadle.engine.face import Blob, Reader
from treadle.engine.outputs import OUTPUTS, id_in, old_enough
from treadle.engine.retention import Cap, Keep
from treadle.engine.webhooks import Outcome, Send
from treadle.lines import Logger
from treadle.model.errors import TreadleError
from treadle.model.task import Delivery
from treadle.server.bridge import Bridge
from treadle.server.delivering import DeliveryLoop
from treadle.server.house import Shield

SECOND = 1.0
PRUNE_SECONDS = 10.0  # between two walks through the tasks
PRUNE_PAUSE = 0.002  # between two slices of a walk
SWEEP_SECONDS = 86400.0
SWEEP_SLICE = 100
log = Logger()


async def each(seconds: float, tick: Callable[[], Awaitable[None]]) -> None:
    """Run a tick again and again; one that fails is logged and tried again a second later."""
    while True:
        pause = seconds
        try:
            await tick()
        except (TreadleError, OSError) as error:
            log.error("tick failed", tick=getattr(tick, "__name__", repr(tick)), error=str(error))
            pause = SECOND
        except Exception:
            log.exception("tick failed")
            pause = SECOND
        await asyncio.sleep(pause)


async def wake_delayed(bridge: Bridge) -> None:
    """Sleep until the first delayed task is due, or a commit has changed which that is; claim what is due."""
    bridge.delays_changed.clear()
    due = bridge.engine.queue.next_due()
    wait = None if due is None else due - time.time()
    if wait is None or wait > 0:
        try:
            async with asyncio.timeout(wait):
                await bridge.delays_changed.wait()
            return
        except TimeoutError:
            pass
    await bridge.ask(bridge.engine.queue.wake, None)


async def look_after(bridge: Bridge) -> None:
    """Expire what waited too long, end what lost its lease, size the fleet."""
    bridge.scale()
    engine = bridge.engine
    duties = (engine.queue.reap, engine.fleet.sweep, engine.queue.recall, engine.switch.clear)
    # asked in one turn of the loop, so run in one transaction
    await asyncio.gather(*(bridge.ask(duty, None) for duty in duties))


async def prune(bridge: Bridge, blob: Blob, keep: Keep, cap: Cap, shield: Shield) -> None:
    """Forget what ended long ago and the oldest logs beyond the cap, slice after slice with a pause in between."""
    retention = bridge.engine.retention
    more = True
    while more:
        async with shield.deleting:
            more = not shield.held and await _prune_slice(bridge, blob, keep)
        await asyncio.sleep(PRUNE_PAUSE)
    await bridge.ask(retention.forget_containers, keep)
    more = True
    while more:
        more = await bridge.ask(retention.trim_logs, cap, urgent=False)
        await asyncio.sleep(PRUNE_PAUSE)


async def _prune_slice(bridge: Bridge, blob: Blob, keep: Keep) -> bool:
    """Whether there is more to look at."""
    retention = bridge.engine.retention
    doomed = await bridge.ask(retention.walk, keep, urgent=False)
    for key in doomed.blob_keys:
        await asyncio.to_thread(blob.delete, key)
    if doomed.task_seqs:
        await bridge.ask(retention.forget, doomed)
    return doomed.more


async def sweep_volumes(bridge: Bridge) -> None:
    """Remove what a killed server has left of volumes that were deleted."""
    for error in await asyncio.to_thread(bridge.engine.volumes.sweep):
        log.warning("a file of a deleted volume could not be removed", error=str(error))


async def sweep_outputs(reader: Reader, blob: Blob, now: float) -> None:
    """Remove the bytes that a killed server or a broken connection has left without a row: nobody can ask for them.

    Of outputs alone: the bytes of a source may be sent again, and get their row, while this looks at them.
    """
    keys = old_enough(blob, OUTPUTS, now)
    while slice_ := await asyncio.to_thread(lambda: list(islice(keys, SWEEP_SLICE))):
        orphans = [key for key in slice_ if reader.output(id_in(key)) is None]
        for key in orphans:
            await asyncio.to_thread(blob.delete, key)
        if orphans:
            log.warning("removed files of outputs that were never finished", files=len(orphans))
        await asyncio.sleep(PRUNE_PAUSE)


def deliveries(bridge: Bridge, send: Callable[[Send], Awaitable[Outcome]]) -> DeliveryLoop:
    """The webhook loop over the engine's verbs."""

    async def take(limit: int, underway: frozenset[str]) -> list[Send]:
        webhooks = bridge.engine.webhooks
        return await bridge.run(partial(webhooks.due, limit=limit, underway=underway))

    async def record(delivery: Delivery, outcome: Outcome) -> Delivery:
        webhooks, chance = bridge.engine.webhooks, random.random()  # noqa: S311 - jitter, not a secret
        return await bridge.run(lambda now: webhooks.record(delivery, outcome, now, chance))

    return DeliveryLoop(send, take, record)


async def deliver(bridge: Bridge, loop: DeliveryLoop) -> None:
    """One look at due deliveries, then wait for the next commit that writes one, for at most a second."""
    bridge.webhook_due.clear()
    await loop.tick()
    try:
        async with asyncio.timeout(SECOND):
            await bridge.webhook_due.wait()
    except TimeoutError:
        pass
