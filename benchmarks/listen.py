"""Opens many connections to a server that wait for news: half of them long polls, half of them event streams."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from typing import Any

AT_ONCE = 200  # connections that are being opened


async def listen(asked: dict[str, Any]) -> None:
    """Open them all, say so in a line, and keep them open, renewing polls that were answered, until killed."""
    gate = asyncio.Semaphore(AT_ONCE)
    opened = [asyncio.Event() for _ in range(asked["count"])]
    tasks = [
        asyncio.create_task(_one(asked, gate, event, stream=number % 2 == 1)) for number, event in enumerate(opened)
    ]
    for event in opened:
        await event.wait()
    print("open", flush=True)
    await asyncio.gather(*tasks)


async def _one(asked: dict[str, Any], gate: asyncio.Semaphore, opened: asyncio.Event, *, stream: bool) -> None:
    path = f"/v2/task/{asked['task_id']}/" + ("logs" if stream else "result?wait=60")
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {asked['token']}\r\n"
    head += "Accept: text/event-stream\r\n\r\n" if stream else "\r\n"
    async with gate:
        reader, writer = await asyncio.open_connection(asked["host"], asked["port"])
    while True:
        writer.write(head.encode())
        if stream and b" 200 " not in await reader.readline():
            sys.exit("an event stream was refused")
        opened.set()
        answer = await reader.readuntil(b"\r\n\r\n")
        while stream and answer:
            answer = await reader.read(65536)
        if stream or b" 200 " not in answer:
            sys.exit(f"it was answered: {answer[:200]!r}")
        await reader.readexactly(int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0]))


def main() -> None:
    """Read one JSON object of arguments from the command line."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(listen(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
