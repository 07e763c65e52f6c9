"""`treadle up` with a fault built in: an agent in a process of its own, a link through a proxy, a disk under the shim.

    python -m crash.serving '{"data": …, "port": …}'   the server, and its agent unless "apart"
    python -m crash.serving agent FOLDER               the agent of a server that was started "apart"

Server and agent are the product's own; only what lies between and below them is not.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from treadle.agent.main import run_agent
from treadle.model.settings import load
from treadle.server.main import serve

from . import power

INVITATION = "invitation.json"  # in the data folder: where the agent of this start of the server is to go, and its token


async def _leave_to_another(*, url: str, token: str, data: Path, stop: asyncio.Event) -> None:
    """Stands where the agent would be."""
    invite(data, {"url": url, "token": token})
    await stop.wait()


def invite(data: Path, invitation: dict[str, str]) -> None:
    draft = data / f"{INVITATION}.new"
    draft.write_text(json.dumps(invitation))
    draft.replace(data / INVITATION)


def server(given: dict[str, Any]) -> None:
    shim = power.Shim() if given["power"] else None
    settings = load(data=given["data"], port=given["port"], grace=given["grace"])

    async def agent(**asked: Any) -> None:
        link = {"url": given["link"]} if given["link"] else {}
        await (_leave_to_another if given["apart"] else run_agent)(**asked | link)

    uvloop.run(serve(settings, run_agent=agent, on_ready=partial(print, "ready", flush=True)))
    del shim


def agent(data: Path) -> None:
    """Follow the invitations of one server after another; containers outlive each of them, and this process."""
    uvloop.run(_follow(data))


async def _follow(data: Path) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    while not over.is_set():
        invitation = _invitation(data)
        stop = asyncio.Event()
        watch = asyncio.create_task(_changes(data, invitation, over, stop))
        if invitation:
            await run_agent(**json.loads(invitation), data=data, stop=stop, kill_on_stop=False)
        await watch


def _invitation(data: Path) -> str:
    path = data / INVITATION
    return path.read_text() if path.exists() else ""


async def _changes(data: Path, known: str, over: asyncio.Event, stop: asyncio.Event) -> None:
    while _invitation(data) == known and not over.is_set():  # noqa: ASYNC110 there is no event of a file
        await asyncio.sleep(0.05)
    stop.set()


if __name__ == "__main__":
    if sys.argv[1] == "agent":
        agent(Path(sys.argv[2]))
    else:
        server(json.loads(sys.argv[1]))
