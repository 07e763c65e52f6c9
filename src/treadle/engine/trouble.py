"""Why no container of a deployment starts: no room, or starts that failed; the latter bring a cooldown."""

from __future__ import annotations

import msgspec

from treadle.engine.hints import Journal

FAILED_STARTS = 3  # in a row make a deployment degraded
COOLDOWN = 60.0  # seconds without a new start after that; doubles with each further one that fails
LONGEST_COOLDOWN = 900.0


class Trouble(msgspec.Struct, frozen=True):
    """`failures` starts have failed in a row; no other before `until`. None failed: there is no room.

    `tail` is what the last one left to read: its traceback, or the end of its log. `never`: there will be no room.
    """

    reason: str
    failures: int = 0
    until: float = 0.0
    tail: str = ""
    never: bool = False


class Troubles:
    """By deployment. A hint: lost with the server, and undone by a rollback: then it is told again."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._by_deployment: dict[str, Trouble] = {}

    def start_failed(self, deployment_id: str, reason: str, now: float, tail: str = "") -> None:
        """One more start has failed; those that fail while it rests were begun before, and change nothing."""
        before = self._by_deployment.get(deployment_id)
        if before is not None and now < before.until:
            return
        failures = (before.failures if before else 0) + 1
        rest = min(COOLDOWN * 2.0 ** min(failures - FAILED_STARTS, 60), LONGEST_COOLDOWN)
        until = now + rest if failures >= FAILED_STARTS else 0.0
        self._put(deployment_id, Trouble(reason, failures, until, tail))

    def _put(self, deployment_id: str, trouble: Trouble) -> None:
        self._journal.put(self._by_deployment, deployment_id, trouble)

    def forget(self, deployment_id: str) -> None:
        """A child could load the handler, or somebody started the deployment anew: it may try again."""
        self._journal.drop(self._by_deployment, deployment_id)

    def no_room(self, deployment_id: str, reason: str, *, never: bool = False) -> None:
        before = self._by_deployment.get(deployment_id)
        if before is None or not before.failures:
            self._put(deployment_id, Trouble(reason, never=never))

    def room(self, deployment_id: str) -> None:
        """There is room again, or none is needed. Failed starts are forgotten only when one succeeds."""
        trouble = self._by_deployment.get(deployment_id)
        if trouble is not None and not trouble.failures:
            self._journal.drop(self._by_deployment, deployment_id)

    def degraded(self, deployment_id: str, now: float) -> bool:
        """Whether the deployment has to rest from failed starts."""
        trouble = self._by_deployment.get(deployment_id)
        return trouble is not None and now < trouble.until

    def of(self, deployment_id: str) -> Trouble | None:
        """What is known to be wrong; may be asked from any thread."""
        return self._by_deployment.get(deployment_id)

    def why(self, deployment_id: str, now: float) -> str:
        """In one line; "" without trouble."""
        trouble = self._by_deployment.get(deployment_id)
        if trouble is None:
            return ""
        if now < trouble.until:
            wait = f"{trouble.failures} failed starts; next try in {trouble.until - now:.0f} s"
            return f"degraded: {wait}: {trouble.reason}"
        return trouble.reason
