"""A server inside the test that listens: the real application behind the real HTTP parser, with an agent spoken by hand."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2

from server.inside import AGENT_TOKEN, Inside
from treadle.model.api import ErrorBody
from treadle.model.errors import Unavailable
from treadle.model.settings import Settings
from treadle.model.wire import (
    AGENT_PATH,
    AgentHello,
    AskImages,
    Build,
    Built,
    ImageHere,
    ImagesTold,
    PruneImages,
    Wanted,
    decode_for_agent,
    encode,
)
from treadle.server import main

SECONDS = 20.0
CODES_NOT_FAILURES = {Unavailable.code}


class Listening(Inside):
    """Reached at `url`. Its agent builds nothing, has one image, and is told of containers, which it never starts."""

    def __init__(self, data: Path, *, max_body: int = 100_000) -> None:
        super().__init__(data, max_body=max_body)
        listener, self.url = main._listen(Settings(data=data, host="127.0.0.1", port=0))
        self.port: int = listener.getsockname()[1]
        self.wanted: list[Wanted] = []
        self._stack = AsyncExitStack()
        self.wait(self._stack.enter_async_context(main._listening(self.app, listener)))
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "websocket", "path": AGENT_PATH, "headers": [(b"authorization", f"Bearer {AGENT_TOKEN}".encode())]}
        self._say({"type": "websocket.connect"})
        self._tell([AgentHello("a1", "host", 8000, 8192, [], "watchdog", [])])
        link = self.app(scope, self._to_server.get, self._from_server)
        self._agent = asyncio.run_coroutine_threadsafe(link, self.loop)
        self.until(self.bridge.agent_came.is_set)

    def close(self) -> None:
        self._say({"type": "websocket.disconnect", "code": 1006})
        self._agent.result(SECONDS)
        self.wait(self._stack.aclose())
        super().close()

    def _say(self, event: dict[str, Any]) -> None:
        self.loop.call_soon_threadsafe(self._to_server.put_nowait, event)

    def _tell(self, messages: list[Any]) -> None:
        self._say({"type": "websocket.receive", "bytes": encode(messages)})

    async def _from_server(self, event: Any) -> None:
        for message in decode_for_agent(event["bytes"]) if event.get("bytes") else []:
            match message:
                case Build():
                    self._tell([Built(message.build_id, error="This agent builds nothing.")])
                case AskImages() | PruneImages():
                    self._tell([ImagesTold(message.ask_id, [ImageHere("image-1", "3.11.7", ("numpy",))])])
                case Wanted():
                    self.wanted.append(message)

    def raw(self, *pieces: bytes, seconds: float = SECONDS) -> bytes:
        """Send these bytes over a connection of their own, end it on our side, and read what comes until it is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as line:
            try:
                for piece in pieces:
                    line.sendall(piece)
                line.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: line.recv(65536), b""))
            except (ConnectionResetError, BrokenPipeError):  # it closed while we were still sending
                return b""


def check_refusal(answer: httpx2.Response) -> None:
    """Nothing failed, and what was refused was refused in the one shape, in few words."""
    assert "Traceback" not in answer.text
    if answer.status_code < 400 or answer.request.method == "HEAD":
        return
    check_error(answer.status_code, answer.json())


def check_error(status: int, body: dict[str, Any]) -> None:
    assert set(ErrorBody.__struct_fields__) == set(body), body
    assert body["error"] and all(isinstance(value, str) for value in body.values()), body
    assert status < 500 or body["code"] in CODES_NOT_FAILURES, body
    assert len(body["error"]) < 2000, body
