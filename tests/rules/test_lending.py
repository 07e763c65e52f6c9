"""What containers may give to drafts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from treadle.model.deployment import Autoscaler, QueueConfig
from treadle.model.volume import VolumeMount
from treadle.rules.lending import not_lent

LENDER = QueueConfig(
    handler="app:lender", secrets=("KEY",), volumes=(VolumeMount("mine", "v"),), memory=256, cpu=2000,
    gpus=("A10G",), gpu_count=1, callback_url="https://own.example/", autoscaler=Autoscaler(max_containers=3, min_containers=1),
)  # fmt: skip


def refused(lender: QueueConfig = LENDER, **asked: Any) -> list[str]:
    return not_lent(QueueConfig(**{"handler": "app:draft", **asked}), lender)


def test_a_draft_gets_all_that_its_maker_has() -> None:
    """Its own queue, then, and any that asks for less."""
    assert not_lent(msgspec.structs.replace(LENDER, handler="app:draft"), LENDER) == []
    assert refused() == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"secrets": ("KEY", "OTHER")}, "secret OTHER"),
        ({"volumes": (VolumeMount("other", "v"),)}, "volume other at 'v'"),
        ({"volumes": (VolumeMount("mine", "elsewhere"),)}, "volume mine at 'elsewhere'"),
        ({"memory": 257}, "memory=257 MiB (it has 256)"),
        ({"cpu": 2500}, "cpu=2.5 (it has 2)"),
        ({"gpus": ("H100",), "gpu_count": 1}, "gpu=H100"),
        ({"gpus": ("any",), "gpu_count": 1}, "gpu=any"),
        ({"gpus": ("A10G",), "gpu_count": 2}, "gpu_count=2 (it has 1)"),
        ({"autoscaler": Autoscaler(max_containers=4)}, "max_containers=4 (it has 3)"),
        ({"autoscaler": Autoscaler(max_containers=3, min_containers=2)}, "min_containers=2 (it has 1)"),
        ({"authorized": False}, "authorized=False"),
        ({"callback_url": "https://evil.example/"}, "callback_url=https://evil.example/"),
    ],
)
def test_a_draft_gets_no_more_than_its_maker_has(asked: dict[str, Any], told: str) -> None:
    """One thing at a time, told in the words of the decorator."""
    assert refused(**asked) == [told]


def test_a_draft_is_at_least_as_closed_as_its_maker() -> None:
    """Without a network, and at its level."""
    shut = QueueConfig(handler="app:lender", block_network=True, min_isolation=2)
    assert refused(shut) == ["a network", "min_isolation=0"]
    assert refused(shut, block_network=True, min_isolation=3) == []


def test_who_is_public_or_has_any_gpu_may_lend_it() -> None:
    """By whatever name the device has."""
    lender = QueueConfig(handler="app:lender", authorized=False, gpus=("Any",), gpu_count=1)
    assert refused(lender, authorized=False, gpus=("h100",), gpu_count=1) == []
