"""Why no container of a deployment starts: no room, or starts that failed; the latter bring a cooldown."""

from __future__ import annotations

import msgspec

FAILED_STARTS = 3  # in a row make a deployment degraded
COOLDOWN = 60.0  # seconds without a new start after that


class Trouble(msgspec.Struct, frozen=True):
    """`failures` starts have failed in a row; no other before `until`. None failed: there is no room."""

    reason: str
    failures: int = 0
    until: float = 0.0


class Troubles:
    """By deployment. A hint: it is lost with the server, and not undone by a rollback."""

    def __init__(self) -> None:
        self._by_deployment: dict[str, Trouble] = {}

    def start_failed(self, deployment_id: str, reason: str, now: float) -> None:
        before = self._by_deployment.get(deployment_id)
        failures = (before.failures if before else 0) + 1
        until = now + COOLDOWN if failures >= FAILED_STARTS else 0.0
        self._by_deployment[deployment_id] = Trouble(reason, failures, until)

    def works(self, deployment_id: str) -> None:
        """A child could load the handler: whatever kept containers from starting is over."""
        self._by_deployment.pop(deployment_id, None)

    def no_room(self, deployment_id: str, reason: str) -> None:
        before = self._by_deployment.get(deployment_id)
        if before is None or not before.failures:
            self._by_deployment[deployment_id] = Trouble(reason)

    def room(self, deployment_id: str) -> None:
        """There is room again, or none is needed. Failed starts are forgotten only when one succeeds."""
        trouble = self._by_deployment.get(deployment_id)
        if trouble is not None and not trouble.failures:
            del self._by_deployment[deployment_id]

    def degraded(self, deployment_id: str, now: float) -> bool:
        """Whether the deployment has to rest from failed starts."""
        trouble = self._by_deployment.get(deployment_id)
        return trouble is not None and now < trouble.until

    def why(self, deployment_id: str, now: float) -> str:
        """In one line; "" without trouble."""
        trouble = self._by_deployment.get(deployment_id)
        if trouble is None:
            return ""
        if now < trouble.until:
            wait = f"{trouble.failures} failed starts; next try in {trouble.until - now:.0f} s"
            return f"degraded: {wait}: {trouble.reason}"
        return trouble.reason
