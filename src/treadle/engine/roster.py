"""The containers that are not over, as the store has them, and what their agents are told to run."""

from __future__ import annotations

from collections.abc import Callable

from treadle.engine.effects import Outbox, ToAgent
from treadle.engine.hints import Journal
from treadle.model.container import Container, ContainerStatus
from treadle.model.deployment import Deployment, Image
from treadle.model.wire import AgentHello, ContainerSpec, Mount, Wanted
from treadle.rules.placement import Capacity
from treadle.store.base import Store


class Roster:
    """Rows of containers, remembered while they live, and the agents that are connected.

    `deployment` and `image` look definitions up, `mounts` tells where volumes are.
    Every change of a row goes through `insert` and `save`.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        outbox: Outbox,
        *,
        deployment: Callable[[str], Deployment],
        image: Callable[[str], Image],
        mounts: Callable[[Deployment], list[Mount]],
    ) -> None:
        self._store = store
        self._journal = journal
        self._outbox = outbox
        self._deployment = deployment
        self._image = image
        self._mounts = mounts
        self.live: dict[str, Container] = {}  # the rows that are not STOPPED
        self.agents: dict[str, AgentHello] = {}
        self.tokens: dict[str, str] = {}  # of containers that were not started yet
        self.secrets: dict[str, dict[str, str]] = {}  # of the same
        self.condemned: dict[str, None] = {}  # silent containers that their agents are to kill

    def insert(self, container: Container, token: str, secrets: dict[str, str]) -> None:
        """A new container, the token its runner will show, and the secrets it is started with."""
        self._store.insert_container(container)
        self._journal.put(self.live, container.id, container)
        self._journal.put(self.tokens, container.id, token)
        self._journal.put(self.secrets, container.id, secrets)

    def save(self, container: Container) -> None:
        """The new row of a container."""
        self._store.update_container(container)
        if container.status is ContainerStatus.STOPPED:
            self._journal.drop(self.live, container.id)
            self._journal.drop(self.condemned, container.id)
            self.forget_start(container.id)
        else:
            self._journal.put(self.live, container.id, container)

    def condemn(self, container_id: str) -> None:
        """Have its agent kill it: it is in no list of what shall run any more."""
        self._journal.put(self.condemned, container_id, None)

    def forget_start(self, container_id: str) -> None:
        """It has started, or never will: what it was to be started with is not needed again."""
        self._journal.drop(self.tokens, container_id)
        self._journal.drop(self.secrets, container_id)

    def is_served(self, deployment_id: str) -> bool:
        return self._deployment(deployment_id).served

    def outdated(self, container: Container) -> bool:
        """Whether newer code than this container's is served: it works until a container of that is ready."""
        deployment = self._deployment(container.deployment_id)
        return deployment.served and container.created_at < deployment.updated_at

    def of(self, deployment_id: str) -> list[Container]:
        """Live containers of a deployment; may be asked from any thread."""
        return [c for c in list(self.live.values()) if c.deployment_id == deployment_id]

    def tell(self, agent_id: str) -> None:
        """Send an agent the list of what shall run on it; what is not listed it kills."""
        mine = [c for c in self.live.values() if c.agent_id == agent_id and c.id not in self.condemned]
        self._outbox.add(ToAgent(agent_id, Wanted([self._spec(c) for c in mine])))

    def _spec(self, container: Container) -> ContainerSpec:
        deployment = self._deployment(container.deployment_id)
        return ContainerSpec(
            container_id=container.id,
            deployment_id=deployment.id,
            token=self.tokens.get(container.id, ""),
            config=deployment.config,
            image=self._image(deployment.image_id),
            source_id=deployment.source_id,
            started=container.started_at is not None,
            stub_type=deployment.stub_type,
            secrets=self.secrets.get(container.id, {}),
            mounts=self._mounts(deployment),
            gpus=container.gpus,
        )

    def machines(self) -> list[Capacity]:
        """What the connected agents have, as if nothing ran there."""
        return [
            Capacity(a.agent_id, a.cpu, a.memory, tuple(a.gpus), isolation=a.isolation, no_higher=a.no_higher)
            for a in list(self.agents.values())
        ]
