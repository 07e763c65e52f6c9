"""Which machine a container goes to, and which GPUs it gets: a pure function of what it asks and what is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from treadle.model.container import Isolation
from treadle.model.deployment import QueueConfig
from treadle.model.rooted import needs_engine
from treadle.model.wire import Gpu
from treadle.rules.gpus import matches, pick


class Capacity(msgspec.Struct, frozen=True):
    """An agent's machine and what its containers have been given of it."""

    agent_id: str
    cpu: int  # millicores
    memory: int  # MiB
    gpus: tuple[Gpu, ...] = ()
    used_memory: int = 0
    isolation: Isolation = Isolation.PROCESS
    no_higher: str = ""  # why its isolation is not higher
    used_gpus: frozenset[str] = frozenset()  # UUIDs

    @property
    def free_memory(self) -> int:
        return self.memory - self.used_memory

    @property
    def free_gpus(self) -> list[Gpu]:
        return [gpu for gpu in self.gpus if gpu.uuid not in self.used_gpus]


class Place(msgspec.Struct, frozen=True):
    """`agent_id` and the devices there, or "" and the reason why not (`never`: not even on an idle cluster)."""

    agent_id: str = ""
    gpus: tuple[str, ...] = ()
    reason: str = ""
    never: bool = False


def place(config: QueueConfig, agents: Iterable[Capacity]) -> Place:
    """The agent with the most free memory that can take one more container of this definition.

    Memory and GPUs are handed out once; cpu is a share, so a busy machine still takes a container, but one that asks
    for more cores than the machine has is refused. Of several GPU names the first that is free anywhere wins.
    """
    everyone = list(agents)
    if not everyone:
        return Place(reason="no agent is connected")
    holders = [a for a in everyone if any(_devices(config, kind, a.gpus) is not None for kind in _kinds(config))]
    if not holders:
        return Place(reason=_no_gpu(config, everyone), never=True)
    rooted = bool(needs_engine(config.image))  # its containers are an engine's: level 3 on whatever machine
    shut = [a for a in holders if rooted or a.isolation >= needed_isolation(config)]
    if not shut:
        return Place(reason=_too_open(config, holders), never=True)
    able = [a for a in shut if a.cpu >= config.cpu and a.memory >= config.memory]
    if not able:
        return Place(reason=_too_big(config, shut), never=True)
    for kind in _kinds(config):
        fits = [
            (a.free_memory, a.agent_id, gpus)
            for a in able
            if a.free_memory >= config.memory and (gpus := _devices(config, kind, a.free_gpus)) is not None
        ]
        if fits:
            _, agent_id, gpus = max(fits)
            return Place(agent_id, gpus)
    return Place(reason=_busy(config, able))


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


def _kinds(config: QueueConfig) -> tuple[str, ...]:
    return config.gpus or ("",)


def _devices(config: QueueConfig, kind: str, gpus: Sequence[Gpu]) -> tuple[str, ...] | None:
    """Devices for a container, none for one that asks for none; None when there are too few."""
    return (pick(kind, config.gpu_count, gpus) or None) if kind else ()


def asked_gpu(config: QueueConfig) -> str:
    """How a definition asks for GPUs, in a few words."""
    return f"gpu={' or '.join(config.gpus)} x{config.gpu_count}"


def _no_gpu(config: QueueConfig, agents: Sequence[Capacity]) -> str:
    machines = [Counter(gpu.name for gpu in agent.gpus) for agent in agents if agent.gpus]
    have = [", ".join(f"{name} x{count}" for name, count in sorted(machine.items())) for machine in machines]
    apart = " on one machine, " if len(have) > 1 else ""
    return f"unschedulable: {asked_gpu(config)}; this cluster has: {apart.join(have) + apart.rstrip(', ') or 'none'}"


def _too_big(config: QueueConfig, agents: Sequence[Capacity]) -> str:
    cpu, memory = max(a.cpu for a in agents), max(a.memory for a in agents)
    what = f"machine with {asked_gpu(config)}" if config.gpus else "machine"
    return (
        f"unschedulable: asks cpu={config.cpu / 1000:g} memory={config.memory} MiB; "
        f"the largest {what} has cpu={cpu / 1000:g} memory={memory} MiB"
    )


def _busy(config: QueueConfig, able: Sequence[Capacity]) -> str:
    most = max(a.free_memory for a in able)
    memory = f"waits for memory: asks {config.memory} MiB, {most} MiB are free now"
    if not config.gpus:
        return memory
    fitting = [(a, [g for g in a.gpus if any(matches(kind, g.name) for kind in config.gpus)]) for a in able]
    total = sum(len(gpus) for _, gpus in fitting)
    free = sum(gpu.uuid not in a.used_gpus for a, gpus in fitting for gpu in gpus)
    if free >= config.gpu_count and most < config.memory:
        return memory
    return f"waits for {asked_gpu(config)}: {free} of {total} {'is' if free == 1 else 'are'} free now"
