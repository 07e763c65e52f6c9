"""Which machine a container goes to, and what is said when there is none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from treadle.model.container import Isolation
from treadle.model.deployment import QueueConfig
from treadle.model.volume import VolumeMount
from treadle.rules.placement import Capacity, place


def asks(**fields: Any) -> QueueConfig:
    return QueueConfig(**{"handler": "app:f", "memory": 1024, **fields})


BIG = Capacity("big", 8000, 8192)
SMALL = Capacity("small", 2000, 2048)
CLOSED = Capacity("closed", 2000, 2048, isolation=Isolation.NAMESPACES)
OPEN = Capacity("open", 8000, 8192, no_higher="TREADLE_ISOLATION=process")


@pytest.mark.parametrize(
    ("config", "agents", "agent_id"),
    [
        (asks(), [SMALL, BIG], "big"),
        (asks(), [SMALL, Capacity("big", 8000, 8192, used_memory=7168)], "small"),
        (asks(cpu=4000), [SMALL, BIG], "big"),
        (asks(memory=2048), [SMALL], "small"),
        (asks(), [Capacity("b", 2000, 2048), Capacity("a", 2000, 2048)], "b"),
        (asks(), [Capacity("full", 2000, 2048, used_memory=2048), SMALL], "small"),
        (asks(cpu=2000), [Capacity("busy", 2000, 65536, used_memory=32768)], "busy"),
        (asks(min_isolation=2), [BIG, CLOSED], "closed"),
        (asks(block_network=True), [BIG, CLOSED], "closed"),
        (asks(min_isolation=1), [CLOSED, BIG], "closed"),
    ],
)
def test_it_goes_where_most_memory_is_free(config: QueueConfig, agents: list[Capacity], agent_id: str) -> None:
    """Among the machines that can hold it; the order in which they are told does not matter."""
    assert place(config, agents).agent_id == agent_id
    assert place(config, agents[::-1]).agent_id == agent_id


@pytest.mark.parametrize(
    ("config", "agents", "never", "reason"),
    [
        (asks(), [], False, "no agent is connected"),
        (
            asks(),
            [Capacity("a", 2000, 2048, used_memory=1536)],
            False,
            "waits for memory: asks 1024 MiB, 512 MiB are free now",
        ),
        (
            asks(cpu=16000),
            [SMALL, BIG],
            True,
            "unschedulable: asks cpu=16 memory=1024 MiB; the largest machine has cpu=8 memory=8192 MiB",
        ),
        (
            asks(memory=9000),
            [SMALL, BIG],
            True,
            "unschedulable: asks cpu=1 memory=9000 MiB; the largest machine has cpu=8 memory=8192 MiB",
        ),
        (
            asks(volumes=(VolumeMount("v", "relative"), VolumeMount("w", "/absolute"))),
            [msgspec.structs.replace(BIG, no_higher="no user namespaces")],
            True,
            "unschedulable: mount_path='/absolute' takes isolation level 2 (namespaces); this cluster has at most"
            " 0 (process): no user namespaces",
        ),
        (
            asks(gpus=("A10G",), gpu_count=1),
            [BIG],
            True,
            "unschedulable: gpu=A10G x1; this cluster has: none",
        ),
        (
            asks(gpus=("A10G", "H100"), gpu_count=2),
            [Capacity("g", 8000, 8192, ("T4",))],
            True,
            "unschedulable: gpu=A10G or H100 x2; GPUs are not handed out by this version",
        ),
        (
            asks(min_isolation=2),
            [OPEN, Capacity("b", 8000, 8192, isolation=Isolation.LANDLOCK, no_higher="level 2 (namespaces): no")],
            True,
            "unschedulable: min_isolation=2 takes isolation level 2 (namespaces); this cluster has at most 1 (landlock):"
            " level 2 (namespaces): no",
        ),
        (
            asks(min_isolation=1, block_network=True),
            [OPEN],
            True,
            "unschedulable: block_network=True takes isolation level 2 (namespaces); this cluster has at most 0 (process):"
            " TREADLE_ISOLATION=process",
        ),
        (
            asks(min_isolation=2, memory=16384),
            [CLOSED, Capacity("open", 8000, 65536)],
            True,
            "unschedulable: asks cpu=1 memory=16384 MiB; the largest machine has cpu=2 memory=2048 MiB",
        ),
    ],
)
def test_why_there_is_no_place(config: QueueConfig, agents: list[Capacity], never: bool, reason: str) -> None:
    """What is asked and what there is; `never` when waiting cannot help."""
    found = place(config, agents)
    assert (found.agent_id, found.never, found.reason) == ("", never, reason)
