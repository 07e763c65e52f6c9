"""A TCP proxy between the server and its agent and runners, which can be cut, choked and slowed down."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK = 16 * 1024


class Link:
    """Listens on a free port of loopback and passes bytes on to `target`. It has a thread of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open = True
        self._flowing = asyncio.Event()
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._server = self._call(self._listen())
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until it is mended."""
        self._call(self._set(open_=False, flowing=True, delay=0.0, reset=True))

    def choke(self) -> None:
        """Keep the connections and pass nothing on: the other side is neither there nor gone."""
        self._call(self._set(open_=True, flowing=False, delay=0.0))

    def slow(self, delay: float) -> None:
        """Pass each piece on `delay` seconds late."""
        self._call(self._set(open_=True, flowing=True, delay=delay))

    def mend(self) -> None:
        """Pass all on at once."""
        self._call(self._set(open_=True, flowing=True, delay=0.0))

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        self._flowing.set()
        return await asyncio.start_server(self._talk, "127.0.0.1", 0)

    async def _set(self, *, open_: bool, flowing: bool, delay: float, reset: bool = False) -> None:
        self._open, self._delay = open_, delay
        (self._flowing.set if flowing else self._flowing.clear)()
        for writer in list(self._writers) if reset else []:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._set(open_=False, flowing=True, delay=0.0, reset=True)
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        self._writers.add(writer)
        try:
            if self._open:
                await self._join(reader, writer)
        except OSError:
            pass  # the server is not there, or the link was cut
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._talks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(back)
        ways = [asyncio.ensure_future(self._pass(*way)) for way in ((reader, back), (there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.transport.abort()
            self._writers.discard(back)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                target.write(data)
                await target.drain()
