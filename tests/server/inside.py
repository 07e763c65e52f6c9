"""The real application over a real store, asked in this process: everything of the server but its socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import httpx2

from treadle.engine.assemble import open_store
from treadle.engine.catalog import Deploy, NewDeployment, NewSource
from treadle.engine.tokens import token_hash
from treadle.model.container import Role, Token, Workspace
from treadle.model.deployment import Deployment, Image, ImageSpec, QueueConfig, spec_digest
from treadle.model.settings import Settings
from treadle.server import folder, main
from treadle.server.app import App
from treadle.server.bridge import Bridge

T = TypeVar("T")
SECONDS = 20.0
SOURCE = "0" * 64
IMAGE = Image("image-1", spec_digest(ImageSpec()), ImageSpec(), "3.11.7", "")
AGENT_TOKEN = "agent-" + "x" * 64


class Inside:
    """A server without a socket. Requests run on its own loop, in a thread; every call here waits for its end."""

    def __init__(self, data: Path, *, max_body: int = 1000) -> None:
        self.draining = False
        self.lines: list[Telephone] = []
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever)
        self._thread.start()
        self.store = open_store(data)
        settings = Settings(data=data, max_body=max_body)
        self.bridge = self.wait(self._bridge())
        self.workspace = folder.open_up(self.store, settings, "http://treadle")
        self.engine = main._engine(self.store, data, self.workspace, self.bridge)
        self.engine.writer.start()
        self.house = main._house(
            settings, "http://treadle", self.bridge, agent_token=AGENT_TOKEN, draining=lambda: self.draining
        )
        self.app = App(self.house, "0.0.0")
        self._client = self.wait(self._open())
        self.token = self.add_token(Role.ADMIN)

    def close(self) -> None:
        for line in self.lines:
            line.hang_up()
        self.wait(self._client.aclose())
        self.engine.writer.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self.house.reader.close()
        self.store.close()

    async def _bridge(self) -> Bridge:
        return Bridge(self.loop)  # made on its loop's thread: what is reported on that is settled there and then

    async def _bridge(self) -> Bridge:
        """On the thread of the loop, as in a server: a bridge tells by it what its own thread has written."""
        return Bridge(self.loop)

    async def _open(self) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.app)  # type: ignore[arg-type]
        return httpx2.AsyncClient(transport=transport, base_url="http://treadle")

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run this on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)

    def ask(self, verb: Any, request: Any = None) -> Any:
        return self.wait(self.bridge.ask(verb, request))

    def request(self, method: str, path: str, *, token: str | None = None, header: str | None = None, **also: Any) -> httpx2.Response:
        """With the admin's token, another one, or any Authorization header; "" sends none."""
        if header is None:
            header = f"Bearer {self.token if token is None else token}" if token != "" else ""
        headers = {"authorization": header.encode("latin-1")} if header else {}
        return self.wait(self._client.request(method, path, headers=headers, **also))

    def wait_later(self, method: str, path: str, **headers: str) -> Future[httpx2.Response]:
        """A request that goes on while the test does."""
        headers = {"authorization": f"Bearer {self.token}", **headers}
        return asyncio.run_coroutine_threadsafe(self._client.request(method, path, headers=headers), self.loop)

    @staticmethod
    def until(ready: Callable[[], Any]) -> None:
        """Look again and again, for as long as a test may take."""
        deadline = time.monotonic() + SECONDS
        while not ready():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.002)

    def add_token(self, role: Role, workspace: Workspace | None = None, *, active: bool = True) -> str:
        token = folder.new_token()
        home = workspace or self.workspace

        def add(_now: float) -> None:
            self.store.insert_token(Token(token[:8], home.id, token_hash(token), role, active, 0.0))

        self.wait(self.bridge.run(add))
        return token

    def deploy(self, name: str = "resize", **fields: Any) -> Deployment:
        """Without the way over HTTP."""
        catalog = self.engine.catalog
        self.ask(catalog.add_source, NewSource(self.workspace.id, SOURCE, 1))
        self.ask(catalog.put_image, IMAGE)
        config = QueueConfig(**{"handler": "app:handler", **fields})
        verb = Deploy(main.uuid7(time.time(), folder.secrets.token_bytes(10)), self.workspace.id, name, config, SOURCE, IMAGE.id)
        made: NewDeployment = self.ask(self.engine.switch.deploy, verb)
        return made.deployment

    def enqueue(self, path: str, body: Any = None, **also: Any) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        return self.request("POST", f"/taskqueue/{path}", content=content, **also)

    def submitted(self, path: str, body: Any = None) -> str:
        answer = self.enqueue(path, body)
        assert answer.status_code == 200, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id


class Telephone:
    """One WebSocket to the application, spoken by hand."""

    def __init__(self, inside: Inside, path: str, token: str) -> None:
        self._inside = inside
        inside.lines.append(self)
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "websocket", "path": path, "headers": [(b"authorization", f"Bearer {token}".encode())]}
        self._say({"type": "websocket.connect"})
        self.call = asyncio.run_coroutine_threadsafe(
            inside.app(scope, self._in.get, self._out.put), inside.loop  # type: ignore[arg-type]
        )

    def _say(self, event: dict[str, Any]) -> None:
        self._inside.loop.call_soon_threadsafe(self._in.put_nowait, event)

    def say(self, frame: bytes) -> None:
        self._say({"type": "websocket.receive", "bytes": frame})

    def say_text(self, text: str) -> None:
        self._say({"type": "websocket.receive", "text": text})

    def hang_up(self) -> None:
        self._say({"type": "websocket.disconnect", "code": 1006})
        self.call.result(SECONDS)

    def hear(self) -> dict[str, Any]:
        """The next event of the server."""
        return self._inside.wait(asyncio.wait_for(self._out.get(), SECONDS))
