"""What agents have on their machines: asked over their links, answered by the number of the question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from treadle.model.errors import Unavailable
from treadle.model.wire import AskImages, ImageHere, ImagesTold, PruneImages
from treadle.server.bridge import Bridge
from treadle.server.builds import connected

ANSWER_SECONDS = 120.0  # to weigh or remove many large images


class Shelves:
    """The images of all connected agents."""

    def __init__(self, bridge: Bridge, new_id: Callable[[], str]) -> None:
        self._bridge = bridge
        self._new_id = new_id
        self._asked: dict[str, tuple[str, asyncio.Future[ImagesTold]]] = {}  # agent id and answer

    async def images(self) -> list[tuple[str, ImageHere]]:
        """Every image, with the id of its agent.

        Raises:
            Unavailable: no agent is there, or one does not answer.
        """
        return await self._ask_all(AskImages)

    async def prune(self, keep: list[str], *, dry_run: bool) -> list[tuple[str, ImageHere]]:
        """Have images removed that are not among `keep`; those that were, or would be."""
        return await self._ask_all(lambda ask_id: PruneImages(ask_id, keep, dry_run))

    async def _ask_all(self, question: Callable[[str], AskImages | PruneImages]) -> list[tuple[str, ImageHere]]:
        agents = await connected(self._bridge)
        answers = await asyncio.gather(*(self._ask(agent_id, question(self._new_id())) for agent_id in agents))
        return [(agent_id, image) for agent_id, told in zip(agents, answers, strict=True) for image in told.images]

    async def _ask(self, agent_id: str, question: AskImages | PruneImages) -> ImagesTold:
        answer: asyncio.Future[ImagesTold] = asyncio.get_running_loop().create_future()
        self._asked[question.ask_id] = agent_id, answer
        try:
            self._bridge.agents[agent_id].send(question)
            async with asyncio.timeout(ANSWER_SECONDS):
                told = await answer
        except TimeoutError:
            raise Unavailable(f"The agent did not answer within {ANSWER_SECONDS:g} s.", "See its log.") from None
        finally:
            del self._asked[question.ask_id]
        if told.error:
            raise Unavailable(told.error)
        return told

    def told(self, agent_id: str, message: ImagesTold) -> None:
        """An answer has come; one to what another agent was asked is none."""
        asked, answer = self._asked.get(message.ask_id, ("", None))
        if answer is not None and asked == agent_id and not answer.done():
            answer.set_result(message)

    def agent_gone(self, agent_id: str) -> None:
        for ask_id, (asked, answer) in self._asked.items():
            if asked == agent_id and not answer.done():
                answer.set_result(ImagesTold(ask_id, error="The agent that was asked is gone. Try again."))
