"""Image builds under way: a request asks an agent, log lines and the end come back over its link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from treadle.engine.face import Reader
from treadle.model.api import BuildEvent
from treadle.model.deployment import ImageSpec, spec_digest
from treadle.model.errors import Unavailable
from treadle.model.wire import Build, BuildLog, Built
from treadle.server.bridge import Bridge

AGENT_SECONDS = 5.0  # to wait for an agent that is about to connect


async def connected(bridge: Bridge) -> list[str]:
    """The agents that are there; the first is waited for.

    Raises:
        Unavailable: none has come in time.
    """
    try:
        async with asyncio.timeout(AGENT_SECONDS):
            await bridge.agent_came.wait()
    except TimeoutError:
        raise Unavailable("No agent is connected; it is what holds images.", "Try again in a moment.") from None
    return list(bridge.agents)


class Builds:
    def __init__(self, bridge: Bridge, reader: Reader, new_id: Callable[[], str]) -> None:
        self._bridge = bridge
        self._reader = reader
        self._new_id = new_id
        self._running: dict[str, tuple[str, asyncio.Queue[BuildLog | Built]]] = {}  # agent id and events

    async def build(self, spec: ImageSpec) -> AsyncIterator[BuildEvent]:
        """Have an image built (or found); yields log lines, then one event with the id or the error."""
        agent_id = (await connected(self._bridge))[0]
        build_id = self._new_id()
        events: asyncio.Queue[BuildLog | Built] = asyncio.Queue()
        self._running[build_id] = (agent_id, events)
        try:
            known = self._reader.image(spec_digest(spec))
            self._bridge.agents[agent_id].send(Build(build_id, spec, known))
            while isinstance(event := await events.get(), BuildLog):
                yield BuildEvent(log=event.line)
            yield await self._end(spec, event)
        finally:
            del self._running[build_id]

    async def _end(self, spec: ImageSpec, built: Built) -> BuildEvent:
        if built.image is None:
            return BuildEvent(error=built.error or "The build ended without an image.")
        image = msgspec.structs.replace(built.image, spec=spec, spec_digest=spec_digest(spec))
        await self._bridge.ask(self._bridge.engine.catalog.put_image, image)
        return BuildEvent(image_id=image.id, cached=built.cached)

    def event(self, agent_id: str, event: BuildLog | Built) -> None:
        """Something came over an agent's link; builds nobody waits for any more are let go."""
        if event.build_id in self._running and self._running[event.build_id][0] == agent_id:
            self._running[event.build_id][1].put_nowait(event)

    def agent_gone(self, agent_id: str) -> None:
        for build_id, (builder, events) in self._running.items():
            if builder == agent_id:
                events.put_nowait(Built(build_id, error="The agent that built the image is gone. Try again."))
