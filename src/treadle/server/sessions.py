"""What is served ends when nobody follows it any more: its command was interrupted, killed, or lost its machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from treadle.engine.serving import EndServe
from treadle.lines import Logger
from treadle.model.deployment import Deployment
from treadle.model.errors import NotFound
from treadle.server.bridge import Bridge

PATIENCE = 30.0  # seconds for the first follower after a start, of the session or of the server
LINGER = 10.0  # for one to come back
log = Logger()


class Sessions:
    """Counts the followers of each served deployment. `ended` is called with one that has ended here."""

    def __init__(self, bridge: Bridge, ended: Callable[[Deployment], None]) -> None:
        self._bridge = bridge
        self._ended = ended
        self._followers: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def opened(self, deployment: Deployment) -> None:
        """It is served, and will be followed soon."""
        self._end_after(PATIENCE, deployment)

    def follow(self, deployment: Deployment) -> None:
        self._followers[deployment.id] = self._followers.get(deployment.id, 0) + 1
        self.forget(deployment.id)

    def unfollow(self, deployment: Deployment, *, over: bool) -> None:
        """One follower less; `over`: it is not served any more."""
        self._followers[deployment.id] -= 1
        if not self._followers[deployment.id]:
            del self._followers[deployment.id]
            if not over:
                self._end_after(LINGER, deployment)

    def forget(self, deployment_id: str) -> None:
        """Somebody has ended it."""
        if timer := self._timers.pop(deployment_id, None):
            timer.cancel()

    def _end_after(self, seconds: float, deployment: Deployment) -> None:
        loop = asyncio.get_running_loop()
        self._timers[deployment.id] = loop.call_later(seconds, self._end, deployment)

    def _end(self, deployment: Deployment) -> None:
        del self._timers[deployment.id]
        verb = EndServe(deployment.workspace_id, deployment.id)
        self._bridge.call(self._bridge.engine.serving.end, verb, partial(self._answered, deployment))

    def _answered(self, deployment: Deployment, answer: object) -> None:
        """It has ended, here or already; or that could not be written, and is tried again unless somebody follows."""
        if not isinstance(answer, Exception) or isinstance(answer, NotFound):
            self._ended(deployment)
            return
        log.error("what nobody follows any more could not be ended", deployment=deployment.id, error=str(answer))
        if deployment.id not in self._followers and deployment.id not in self._timers:
            self._end_after(LINGER, deployment)

    def close(self) -> None:
        """The server is going away; what is served goes on after its next start."""
        for timer in self._timers.values():
            timer.cancel()
