"""A deployment that tasks are put through. In a container that is all it takes; elsewhere `prepare` comes first."""

from __future__ import annotations

import shlex

import msgspec

from treadle.client import Client
from treadle.model.api import Deployed, DeployRequest
from treadle.model.deployment import QueueConfig
from treadle.model.settings import Settings
from treadle.sdk.console import Console
from treadle.sdk.handle import TaskHandle


class Prepared(msgspec.Struct, frozen=True):
    """A deployment that is there, and the client that reaches it."""

    client: Client
    settings: Settings
    deployed: Deployed

    @property
    def queue(self) -> str:
        """Where its tasks are submitted to."""
        return f"id/{self.deployed.deployment_id}"

    def put(self, payload: bytes) -> TaskHandle:
        """Enqueue a task and say so."""
        task_id = self.client.enqueue(self.queue, payload)
        Console().step(f"Enqueued task: {task_id}")
        return TaskHandle(task_id, self.client)

    def put_lot(self, payloads: bytes) -> list[TaskHandle]:
        """Enqueue the tasks of a JSON array, all or none."""
        return [TaskHandle(task_id, self.client) for task_id in self.client.enqueue_many(self.queue, payloads)]


def borrow(config: QueueConfig, settings: Settings, *, name: str = "") -> Prepared:
    """In a container: a draft of the source that it was started from. Nothing is built or uploaded.

    Raises:
        Forbidden: there is a name, an image that does not exist, or a secret, volume or network it has not itself.
    """
    client = Client(settings.url, settings.token)
    return Prepared(client, settings, client.deploy(DeployRequest(name=name, config=config)))


def curl(deployed: Deployed, token: str) -> str:
    """A command that submits a task without arguments when it is pasted into a shell."""
    lines = [f"curl -X POST {shlex.quote(deployed.invoke_url)}", "  -H 'Content-Type: application/json'"]
    if deployed.authorized:
        lines.append(f"  -H {shlex.quote(f'Authorization: Bearer {token}')}")
    return " \\\n".join([*lines, "  -d '{}'"])
