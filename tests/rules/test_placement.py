"""Which machine a container goes to, and what is said when there is none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from treadle.model.container import Isolation
from treadle.model.deployment import QueueConfig
from treadle.model.volume import VolumeMount
from treadle.model.wire import Gpu
from treadle.rules.placement import Capacity, place


def asks(**fields: Any) -> QueueConfig:
    return QueueConfig(**{"handler": "app:f", "memory": 1024, **fields})


BIG = Capacity("big", 8000, 8192)
SMALL = Capacity("small", 2000, 2048)
CLOSED = Capacity("closed", 2000, 2048, isolation=Isolation.NAMESPACES)
OPEN = Capacity("open", 8000, 8192, no_higher="TREADLE_ISOLATION=process")
T4S = (Gpu("t1", "Tesla T4"), Gpu("t2", "Tesla T4"), Gpu("l1", "NVIDIA L4"))
GPUS = Capacity("gpus", 8000, 8192, T4S)


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
            [Capacity("g", 8000, 8192, T4S[:1]), Capacity("h", 8000, 8192, T4S)],
            True,
            "unschedulable: gpu=A10G or H100 x2; this cluster has: "
            "Tesla T4 x1 on one machine, NVIDIA L4 x1, Tesla T4 x2 on one machine",
        ),
        (
            asks(gpus=("T4",), gpu_count=3),
            [Capacity("h", 8000, 8192, T4S)],
            True,
            "unschedulable: gpu=T4 x3; this cluster has: NVIDIA L4 x1, Tesla T4 x2",
        ),
        (
            asks(gpus=("T4",), gpu_count=1, memory=9000),
            [Capacity("big", 8000, 65536), Capacity("h", 8000, 8192, T4S)],
            True,
            "unschedulable: asks cpu=1 memory=9000 MiB; the largest machine with gpu=T4 x1 has cpu=8 memory=8192 MiB",
        ),
        (
            asks(gpus=("T4",), gpu_count=2),
            [Capacity("h", 8000, 8192, T4S, used_gpus=frozenset({"t1"}))],
            False,
            "waits for gpu=T4 x2: 1 of 2 is free now",
        ),
        (
            asks(gpus=("T4",), gpu_count=1),
            [Capacity("h", 8000, 8192, T4S, used_memory=8000)],
            False,
            "waits for memory: asks 1024 MiB, 192 MiB are free now",
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


@pytest.mark.parametrize(
    ("names", "count", "used", "given"),
    [
        (("T4",), 1, set(), ("t1",)),
        (("T4",), 1, {"t1"}, ("t2",)),
        (("T4",), 2, set(), ("t1", "t2")),
        (("H100", "L4", "T4"), 1, set(), ("l1",)),
        (("L4", "T4"), 1, {"l1"}, ("t1",)),
        (("any",), 3, set(), ("t1", "t2", "l1")),
    ],
)
def test_devices_are_given_by_name_in_order_of_preference(
    names: tuple[str, ...], count: int, used: set[str], given: tuple[str, ...]
) -> None:
    """The first name of which enough are free, and only free ones."""
    agents = [BIG, Capacity("gpus", 8000, 8192, T4S, used_gpus=frozenset(used))]
    found = place(asks(gpus=names, gpu_count=count), agents)
    assert (found.agent_id, found.gpus) == ("gpus", given)


def test_a_preferred_device_wins_over_more_memory() -> None:
    """Preference is looked at over all machines before memory."""
    roomy = Capacity("roomy", 8000, 65536, (Gpu("l", "NVIDIA L4"),))
    found = place(asks(gpus=("T4", "L4"), gpu_count=1), [roomy, GPUS])
    assert (found.agent_id, found.gpus) == ("gpus", ("t1",))


def test_without_a_gpu_asked_none_is_given() -> None:
    """Also on a machine that has some."""
    assert place(asks(), [GPUS]).gpus == ()
