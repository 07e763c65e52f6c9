"""The server's life: open, listen, run, drain, close."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from treadle import __version__
from treadle.engine.assemble import Chance, Engine, assemble, open_blob, open_store
from treadle.engine.face import Store
from treadle.engine.fleet import Drain
from treadle.engine.retention import Cap, Keep
from treadle.lines import Logger
from treadle.model.container import Workspace
from treadle.model.errors import Conflict, InvalidInput, TreadleError
from treadle.model.ids import uuid7
from treadle.model.settings import Settings
from treadle.model.wire import MAX_FRAME
from treadle.server import folder, loggers, loops
from treadle.server.app import App
from treadle.server.auth import Doors
from treadle.server.bridge import Bridge
from treadle.server.builds import Builds
from treadle.server.delivering import LateSender
from treadle.server.house import House, Shield
from treadle.server.lookup import Lookup
from treadle.server.patience import PatientHttp
from treadle.server.sessions import Sessions
from treadle.server.shelves import Shelves
from treadle.server.sockets import Ws
from treadle.server.views import Views

RunAgent = Callable[..., Coroutine[Any, Any, None]]
KILL_SECONDS = 10.0  # for what is left after the grace to be killed
log = Logger()


async def serve(settings: Settings, *, run_agent: RunAgent, on_ready: Callable[[str], None]) -> None:
    """Run a server and one agent until SIGTERM or SIGINT; a second signal ends the grace.

    `on_ready` gets the URL once requests are answered.

    Raises:
        Conflict: the data folder or the port is in use.
    """
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    async with AsyncExitStack() as stack:
        lock = folder.Lock(settings.data)
        stack.callback(lock.release)
        lock.grace()  # what an earlier server was to read
        listener, base = _listen(settings)
        store = open_store(settings.data, log.info)
        stack.callback(store.close)
        bridge = Bridge(loop)
        workspace = folder.open_up(store, settings, base)
        engine = _engine(store, settings.data, workspace, bridge)
        engine.writer.start()
        stack.callback(engine.writer.stop)
        stop = asyncio.Event()
        agent_token = folder.new_token()
        house = _house(settings, base, bridge, agent_token=agent_token, draining=stop.is_set)
        stack.callback(house.reader.close)  # the last one to close takes the write-ahead log along
        stack.callback(house.sessions.close)
        for deployment in house.reader.served():
            house.sessions.opened(deployment)
        await stack.enter_async_context(_listening(App(house, __version__), listener))
        await stack.enter_async_context(_ticking(bridge, house, settings))
        kill = asyncio.Event()
        agent = asyncio.create_task(run_agent(url=base, token=agent_token, data=settings.data, stop=kill))
        _leave_garbage_be()
        lock.announce(base)
        on_ready(base)
        await _first(signals, agent)
        stop.set()
        grace = lock.grace()
        try:
            await _drain(bridge, settings.grace if grace is None else grace, signals)
        finally:
            kill.set()
            await asyncio.wait([agent], timeout=KILL_SECONDS)


def _leave_garbage_be() -> None:
    """What start-up made stays; looking through it again and again would cost a tenth of every request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _listen(settings: Settings) -> tuple[socket.socket, str]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets NODELAY by this word
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except (ValueError, TypeError) as error:  # what Python says of a name that no host can have
        listener.close()
        raise InvalidInput(f"host={settings.host!r} is not a host: {error}.", "Set a name or an address.") from None
    except OSError as error:
        listener.close()
        raise Conflict(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}.", "Choose another --port."
        ) from error
    listener.setblocking(False)
    return listener, _base(settings, listener.getsockname()[1])


def _base(settings: Settings, port: int) -> str:
    """The URL this machine reaches us at; a server that listens everywhere is reached on loopback too."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _engine(store: Store, data: Path, workspace: Workspace, bridge: Bridge) -> Engine:
    chance = Chance(
        clock=_clock,
        jitter=random.random,
        secret=folder.new_token,
        suffix=lambda: secrets.token_hex(4),
        random=os.urandom,
    )
    engine = assemble(store, data, workspace, chance, bridge.report)
    bridge.attach(engine)
    return engine


def _clock() -> float:
    """Unix seconds to the microsecond, as records tell them: a time that was read finds its task again."""
    return round(time.time(), 6)


def _house(
    settings: Settings, base: str, bridge: Bridge, *, agent_token: str, draining: Callable[[], bool]
) -> House:
    engine = bridge.engine
    reader = engine.store.reader()
    lookup = Lookup(reader)
    return House(
        settings=settings,
        base=base,
        bridge=bridge,
        reader=reader,
        blob=open_blob(settings.data),
        doors=Doors(reader, agent_token),
        lookup=lookup,
        views=Views(engine, reader, lookup, base),
        builds=Builds(bridge, reader, _new_id),
        shelves=Shelves(bridge, _new_id),
        sessions=Sessions(bridge, lookup.changed),
        shield=Shield(),
        draining=draining,
    )


def _new_id() -> str:
    return uuid7(time.time(), os.urandom(10))


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers (the signals are ours), telling when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=PatientHttp,
        ws=Ws,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # runners and agents send heartbeats of their own
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
        proxy_headers=False,
    )


@asynccontextmanager
async def _listening(app: App, listener: socket.socket) -> AsyncIterator[None]:
    server = _Uvicorn(_http(app))
    with loggers.told():
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.ready.wait()
        try:
            yield
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def _ticking(bridge: Bridge, house: House, settings: Settings) -> AsyncIterator[None]:
    sender = LateSender(
        allow_private=settings.allow_private_webhooks,
        allow_loopback=settings.allow_loopback_webhooks,
        trust_loopback=_on_loopback(settings.host),
    )
    delivery = loops.deliveries(bridge, sender.send)

    async def wake() -> None:
        await loops.wake_delayed(bridge)

    async def look() -> None:
        await loops.look_after(bridge)

    async def deliver() -> None:
        await loops.deliver(bridge, delivery)

    async def prune() -> None:
        keep, cap = Keep(settings.retention * 86400), Cap(settings.max_logs * 2**20)
        await loops.prune(bridge, house.blob, keep, cap, house.shield)

    async def sweep() -> None:
        await loops.sweep_volumes(bridge)
        await loops.sweep_outputs(house.reader, house.blob, time.time())

    ticks = [
        (loops.PRUNE_SECONDS, prune), (loops.SWEEP_SECONDS, sweep),
        (0.0, wake), (loops.SECOND, look), (0.0, deliver),
    ]  # fmt: skip
    running = [asyncio.create_task(loops.each(seconds, tick)) for seconds, tick in ticks]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await delivery.close()
        await sender.close()


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _first(signals: asyncio.Queue[int], agent: asyncio.Task[None]) -> None:
    """Wait for a signal; an agent that ends by itself is an error worth ending for."""
    waiting = asyncio.create_task(signals.get())
    await asyncio.wait([waiting, agent], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if agent.done():
        agent.result()


async def _drain(bridge: Bridge, grace: float, signals: asyncio.Queue[int]) -> None:
    """Let running tasks finish within the grace; a second signal cuts it short.

    What cannot be written (the disk is full) is asked for again each second; the grace is theirs all the same.
    """
    loop, live = asyncio.get_running_loop(), bridge.engine.roster.live
    end = loop.time() + grace
    hurry = asyncio.create_task(signals.get())
    told = await _tell_to_stop(bridge, grace)
    try:
        async with asyncio.timeout(grace + 1.0):
            while live and not hurry.done():
                bridge.fleet_changed.clear()
                change = asyncio.create_task(bridge.fleet_changed.wait())
                patience = None if told else loops.SECOND
                await asyncio.wait([hurry, change], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                told = told or await _tell_to_stop(bridge, max(end - loop.time(), 0.0))
    except TimeoutError:
        log.warning("tasks were still running after the grace; they will be retried", containers=len(live))
    finally:
        hurry.cancel()
    await _tell_to_stop(bridge, 0.0)  # whatever is killed from here on was interrupted by us


async def _tell_to_stop(bridge: Bridge, grace: float) -> bool:
    """Whether it is written down, and so on its way to all containers."""
    try:
        await bridge.ask(bridge.engine.fleet.drain, Drain(grace))
    except (TreadleError, OSError) as error:
        log.error("containers could not be told to stop", grace=round(grace, 1), error=str(error))
        return False
    return True
