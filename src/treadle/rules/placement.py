"""Which machine a container goes to: a pure function of what it asks and what the agents have."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from treadle.model.container import Isolation
from treadle.model.deployment import QueueConfig


class Capacity(msgspec.Struct, frozen=True):
    """An agent's machine and what its containers have been given of it."""

    agent_id: str
    cpu: int  # millicores
    memory: int  # MiB
    gpus: tuple[str, ...] = ()
    used_memory: int = 0
    isolation: Isolation = Isolation.PROCESS
    no_higher: str = ""  # why its isolation is not higher


class Place(msgspec.Struct, frozen=True):
    """`agent_id`, or "" and the reason why there is no place (`never`: not even on an idle cluster)."""

    agent_id: str = ""
    reason: str = ""
    never: bool = False


def place(config: QueueConfig, agents: Iterable[Capacity]) -> Place:
    """The agent with the most free memory that can take one more container of this definition.

    Memory is a hard limit and is handed out once; cpu is a share, so a busy machine still takes a container, but one
    that asks for more cores than the machine has is refused.
    """
    everyone = list(agents)
    if not everyone:
        return Place(reason="no agent is connected")
    if config.gpus:
        return Place(reason=_no_gpu(config, everyone), never=True)
    shut = [a for a in everyone if a.isolation >= needed_isolation(config)]
    if not shut:
        return Place(reason=_too_open(config, everyone), never=True)
    able = [a for a in shut if a.cpu >= config.cpu and a.memory >= config.memory]
    if not able:
        return Place(reason=_too_big(config, shut), never=True)
    free = [a for a in able if a.memory - a.used_memory >= config.memory]
    if not free:
        most = max(a.memory - a.used_memory for a in able)
        return Place(reason=f"waits for memory: asks {config.memory} MiB, {most} MiB are free now")
    return Place(max(free, key=lambda a: (a.memory - a.used_memory, a.agent_id)).agent_id)


def needed_isolation(config: QueueConfig) -> Isolation:
    """The lowest level at which a container of this definition may run: some of what it asks there is from 2 on."""
    return max(Isolation(config.min_isolation), Isolation.NAMESPACES if _of_its_own(config) else Isolation.PROCESS)


def _of_its_own(config: QueueConfig) -> str:
    """What takes a network or a root folder of the container's own, as it is declared; "" for nothing."""
    absolute = [f"mount_path={mount.mount_path!r}" for mount in config.volumes if mount.is_absolute]
    return "block_network=True" if config.block_network else "".join(absolute[:1])


def _too_open(config: QueueConfig, agents: list[Capacity]) -> str:
    needed, best = needed_isolation(config), max(agents, key=lambda a: (a.isolation, a.agent_id))
    asked = f"min_isolation={config.min_isolation}" if config.min_isolation == needed else _of_its_own(config)
    return (
        f"unschedulable: {asked} takes isolation level {needed.value} ({needed.name.lower()}); this cluster has at"
        f" most {best.isolation.value} ({best.isolation.name.lower()}): {best.no_higher or 'no reason was told'}"
    )


def _no_gpu(config: QueueConfig, agents: list[Capacity]) -> str:
    have = sorted({gpu for agent in agents for gpu in agent.gpus})
    asked = " or ".join(config.gpus)
    return (
        f"unschedulable: gpu={asked} x{config.gpu_count}; this cluster has: {', '.join(have) or 'none'}"
        if not have
        else f"unschedulable: gpu={asked} x{config.gpu_count}; GPUs are not handed out by this version"
    )


def _too_big(config: QueueConfig, agents: list[Capacity]) -> str:
    cpu, memory = max(a.cpu for a in agents), max(a.memory for a in agents)
    return (
        f"unschedulable: asks cpu={config.cpu / 1000:g} memory={config.memory} MiB; "
        f"the largest machine has cpu={cpu / 1000:g} memory={memory} MiB"
    )
