"""What has to happen outside once a transaction is committed."""

from __future__ import annotations

import msgspec

from treadle.model.wire import ServerToAgent, ServerToRunner


class Linked(msgspec.Struct, frozen=True):
    """From here on messages to this container go over this link: those before belong to the one before."""

    container_id: str
    link: int


class ToRunner(msgspec.Struct, frozen=True):
    """Send a message over the link of this container, if it is connected to us."""

    container_id: str
    message: ServerToRunner


class ToAgent(msgspec.Struct, frozen=True):
    """Send a message over the link of this agent, if it is connected to us."""

    agent_id: str
    message: ServerToAgent


class TaskEnded(msgspec.Struct, frozen=True):
    """Whoever waits for this task can be answered."""

    task_id: str
    deployment_id: str


class Served(msgspec.Struct, frozen=True):
    """Of a served deployment a container is `ready`, or has `failed` for the reason in `text`; or it has `ended`."""

    deployment_id: str
    kind: str
    text: str


class Printed(msgspec.Struct, frozen=True):
    """There are new lines: of these tasks, in these containers, of these deployments. All ids are different."""

    ids: frozenset[str]


class WebhookDue(msgspec.Struct, frozen=True):
    """A delivery was written."""


class ScaleDue(msgspec.Struct, frozen=True):
    """Work without a free child, or a container that is gone: look at the fleet now."""


Effect = Linked | ToRunner | ToAgent | TaskEnded | Served | Printed | WebhookDue | ScaleDue


class Outbox:
    """Effects of the running transaction, in order; dropped when it is rolled back."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def mark(self) -> int:
        return len(self._effects)

    def back_to(self, mark: int) -> None:
        del self._effects[mark:]

    def take(self) -> list[Effect]:
        taken, self._effects = self._effects, []
        return taken
