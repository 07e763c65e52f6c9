"""The WebSockets to runners and agents: bare ASGI, frames of msgpack messages, read no faster than written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import msgspec

from treadle.engine.fleet import Connected, Disconnected, Freed, Gone
from treadle.engine.logs import Keep
from treadle.engine.queue import GivenBack, Report
from treadle.lines import Logger
from treadle.model.container import Container
from treadle.model.errors import Forbidden, InvalidInput, TreadleError
from treadle.model.wire import (
    PROTOCOL,
    AgentHello,
    AgentToServer,
    Beat,
    BuildLog,
    Built,
    Exited,
    Finished,
    Hello,
    ImagesTold,
    Lines,
    LoadFailed,
    Raised,
    Ready,
    Returned,
    RunnerToServer,
    decode_from_agent,
    decode_from_runner,
    split,
)
from treadle.server.asgi import JSON, Receive, Scope, Send, error_body, header
from treadle.server.auth import Doors
from treadle.server.bridge import Bridge
from treadle.server.builds import Builds
from treadle.server.shelves import Shelves
from treadle.server.sockets import TRY_AGAIN, Socket

REFUSED = 4003  # close code: do not come back
UNKNOWN = 4004  # close code: there is no such link
HELLO_SECONDS = 30.0
NOTHING = b"\x90"  # a frame of no messages
# What a runner says is in memory until it is on disk, and no more of it is read than weighs so much: bytes, and for
# each message about what it takes to be dealt with.
MAX_UNWRITTEN = 8 * 1024 * 1024
MESSAGE_WEIGHT = 4 * 1024
T = TypeVar("T")
log = Logger()


class Links:
    """Both kinds of links."""

    def __init__(self, bridge: Bridge, doors: Doors, builds: Builds, shelves: Shelves) -> None:
        self._bridge = bridge
        self._doors = doors
        self._builds = builds
        self._shelves = shelves

    async def runner(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a runner's link from handshake to close."""
        await receive()  # websocket.connect
        try:
            container = self._doors.container(header(scope, b"authorization"))
        except TreadleError as error:
            await turn_away(scope, send, REFUSED, error)
            return
        await send({"type": "websocket.accept"})
        socket = Socket(scope, send)
        await self._pumped(socket, self._talk_to_runner(container, socket, receive))

    @staticmethod
    async def _pumped(socket: Socket, talk: Awaitable[str]) -> None:
        pump = asyncio.create_task(socket.pump())
        try:
            refused = await talk
            if refused:
                await socket.close(REFUSED, _fitting(refused))
        except TreadleError as error:  # our own trouble, a full disk, say: the other side is to call again
            log.error("link closed", error=str(error))
            await socket.close(TRY_AGAIN)
        finally:
            pump.cancel()
            socket.end()

    async def _talk_to_runner(self, container: Container, socket: Socket, receive: Receive) -> str:
        """Answers why the link was refused, or "" when the runner closed it."""
        fleet, runners = self._bridge.engine.fleet, self._bridge.runners
        try:
            messages = _messages(decode_from_runner, await _first_frame(receive))
            hello, _ = next(messages, (None, 0))
            if not isinstance(hello, Hello):
                return "the first message must be hello"
            if hello.protocol != PROTOCOL or hello.container_id != container.id:
                return "wrong protocol or container"
            self._bridge.opening[socket.number] = socket
            await self._bridge.ask(fleet.connect, Connected(hello, socket.number))
            unwritten = await self._from_runner(container.id, socket, messages, 0)
            while (frame := await _frame(receive)) is not None:
                messages = _messages(decode_from_runner, frame)
                unwritten = await self._from_runner(container.id, socket, messages, unwritten)
        except TreadleError as error:
            if error.status >= TreadleError.status:
                raise
            log.warning("runner refused", container=container.id, error=str(error))
            return str(error)
        finally:
            self._bridge.opening.pop(socket.number, None)
            if runners.get(container.id) is socket:
                del runners[container.id]
            self._bridge.tell(fleet.disconnected, Disconnected(container.id, socket.number))
        return ""

    async def _from_runner(
        self, container_id: str, socket: Socket, messages: Iterator[tuple[RunnerToServer, int]], unwritten: int
    ) -> int:
        """Answers what may not be on disk yet, as MAX_UNWRITTEN weighs it, given what was not before."""
        for message, size in messages:
            self._take(container_id, socket, message)
            unwritten += size + MESSAGE_WEIGHT
            if unwritten > MAX_UNWRITTEN:
                await self._bridge.run(_nothing)  # written after all that was asked before it
                unwritten = 0
        return unwritten

    def _take(self, container_id: str, socket: Socket, message: RunnerToServer) -> None:
        engine, tell = self._bridge.engine, self._bridge.tell
        match message:
            case Finished():
                report = Report(container_id, _judged(message), socket.number)
                urgent = self._bridge.awaited(message.ref.task_id) or engine.queue.lacks_child(container_id)
                tell(engine.queue.finish, report, socket.fail, urgent=urgent)
            case Lines():
                tell(engine.logs.keep, Keep(container_id, message), urgent=False)
            case Returned(refs):
                given = GivenBack(container_id, refs, socket.number)
                tell(engine.queue.take_back, given, socket.fail)
            case Ready():
                tell(engine.fleet.freed, Freed(container_id, message, socket.number), socket.fail)
            case Beat():
                tell(engine.fleet.beat, container_id)
            case LoadFailed(reason, traceback):
                tail = traceback.rstrip()
                log.warning("handler could not be loaded", container=container_id, reason=reason, trace=tail)
                gone = Gone(container_id, f"could not load the handler: {reason}", failed=True, tail=tail)
                tell(engine.fleet.load_failed, gone, socket.fail)
            case Hello():
                raise Forbidden("Hello comes once.")

    async def agent(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an agent's link from handshake to close."""
        await receive()  # websocket.connect
        try:
            self._doors.agent(header(scope, b"authorization"))
        except TreadleError as error:
            await turn_away(scope, send, REFUSED, error)
            return
        await send({"type": "websocket.accept"})
        socket = Socket(scope, send)
        await self._pumped(socket, self._talk_to_agent(socket, receive))

    async def _talk_to_agent(self, socket: Socket, receive: Receive) -> str:
        hello: AgentHello | None = None
        fleet, agents = self._bridge.engine.fleet, self._bridge.agents
        try:
            messages = _messages(decode_from_agent, await _first_frame(receive))
            first, _ = next(messages, (None, 0))
            if not isinstance(first, AgentHello) or first.protocol != PROTOCOL:
                return "the first message must be agent_hello of this protocol"
            hello = first
            before, agents[hello.agent_id] = agents.get(hello.agent_id), socket
            if before is not None:  # if it was not dead, the agent calls again
                before.fail()
            await self._bridge.ask(fleet.agent_connected, hello)
            self._bridge.agent_came.set()
            self._from_agent(hello.agent_id, socket, messages)
            while (frame := await _frame(receive)) is not None:
                self._from_agent(hello.agent_id, socket, _messages(decode_from_agent, frame))
        except TreadleError as error:
            if error.status >= TreadleError.status:
                raise
            log.warning("agent refused", agent=hello and hello.agent_id, error=str(error))
            return str(error)
        finally:
            if hello is not None and agents.get(hello.agent_id) is socket:
                del agents[hello.agent_id]
                self._bridge.tell(fleet.agent_gone, hello)
                self._builds.agent_gone(hello.agent_id)
                self._shelves.agent_gone(hello.agent_id)
                if not agents:
                    self._bridge.agent_came.clear()
        return ""

    def _from_agent(self, agent_id: str, socket: Socket, messages: Iterator[tuple[AgentToServer, int]]) -> None:
        for message, _ in messages:
            match message:
                case Exited(container_id, reason, failed, tail):
                    gone = Gone(container_id, reason, failed, tail, agent_id)
                    self._bridge.tell(self._bridge.engine.fleet.gone, gone, socket.fail)
                case BuildLog() | Built():
                    self._builds.event(agent_id, message)
                case ImagesTold():
                    self._shelves.told(agent_id, message)
                case AgentHello():
                    raise Forbidden("Hello comes once.")
                case Beat():
                    pass


async def _frame(receive: Receive) -> bytes | None:
    """The next binary frame, or None at the end of the link."""
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return None
        data = event.get("bytes")
        if data is not None:
            return bytes(data)
        raise InvalidInput("Text frames are not part of the protocol.")


async def _first_frame(receive: Receive) -> bytes:
    """The one that must come soon."""
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            return await _frame(receive) or NOTHING
    except TimeoutError:
        raise InvalidInput(f"No hello came within {HELLO_SECONDS:.0f} s.") from None


def _messages(decode: Callable[[msgspec.Raw], T], frame: bytes) -> Iterator[tuple[T, int]]:
    """The messages of a frame and their bytes, read one after the other."""
    try:
        for raw in split(frame):
            yield decode(raw), len(memoryview(raw))
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise InvalidInput(f"This frame is not of the protocol: {error}.") from None


def _nothing(_now: float) -> None:
    pass


def _judged(finished: Finished) -> Finished:
    """As it is, unless its result is not JSON: that goes to clients unread, in the middle of our own."""
    if finished.result is None:
        return finished
    try:
        str(finished.result, "utf-8")
        msgspec.json.decode(finished.result, type=msgspec.Raw)
    except (ValueError, RecursionError) as error:
        raised = Raised("ValueError", f"The result is not JSON: {error}.", "", retryable=False, not_json=True)
        return msgspec.structs.replace(finished, result=None, raised=raised)
    return finished


def _fitting(reason: str) -> str:
    """As much of a reason as a close frame takes (RFC 6455: 123 bytes)."""
    return reason.encode(errors="replace")[:123].decode(errors="ignore")


async def turn_away(scope: Scope, send: Send, code: int, error: TreadleError) -> None:
    """Refuse a WebSocket before it begins: with an answer to its handshake where the server can give one."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": code})
        return
    headers = [JSON, (b"connection", b"close")]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": error_body(error)})
