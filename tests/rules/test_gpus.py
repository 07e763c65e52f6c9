"""Which devices a GPU's name means."""

from __future__ import annotations

import pytest

from treadle.model.wire import Gpu
from treadle.rules.gpus import matches, pick
from treadle.sdk.options import GpuType


@pytest.mark.parametrize(
    ("asked", "name", "fits"),
    [
        ("A10", "NVIDIA A10", True),
        ("A10", "NVIDIA A10G", False),
        ("A10G", "NVIDIA A10G", True),
        ("A10G", "NVIDIA A10", False),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("h100", "NVIDIA H100 PCIe", True),
        ("H100", "NVIDIA GH200 480GB", False),
        ("A100", "NVIDIA A100-SXM4-40GB", True),
        ("A100-40", "NVIDIA A100-SXM4-40GB", True),
        ("A100-80", "NVIDIA A100-SXM4-40GB", False),
        ("A100-80", "NVIDIA A100 80GB PCIe", True),
        ("T4", "Tesla T4", True),
        ("T4", "NVIDIA T400", False),
        ("L4", "NVIDIA L40S", False),
        ("RTX4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX4090", "NVIDIA GeForce RTX 3090", False),
        ("any", "Tesla T4", True),
        ("ANY", "NVIDIA H200", True),
        ("", "Tesla T4", False),
        ("-", "Tesla T4", False),
    ],
)
def test_a_name_fits_by_its_words(asked: str, name: str, fits: bool) -> None:
    """Every word asked for is a word of the device's name; a part of a word is not."""
    assert matches(asked, name) == fits


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (GpuType.T4, "Tesla T4"),
        (GpuType.L4, "NVIDIA L4"),
        (GpuType.A10G, "NVIDIA A10G"),
        (GpuType.A100_40, "NVIDIA A100-PCIE-40GB"),
        (GpuType.A100_80, "NVIDIA A100-SXM4-80GB"),
        (GpuType.H100, "NVIDIA H100 NVL"),
        (GpuType.H200, "NVIDIA H200"),
        (GpuType.B200, "NVIDIA B200"),
        (GpuType.RTX4090, "NVIDIA GeForce RTX 4090"),
        (GpuType.RTX5090, "NVIDIA GeForce RTX 5090"),
    ],
)
def test_beams_names_fit_one_another_never(kind: GpuType, name: str) -> None:
    """Each of Beam's names fits the driver's name of its device, and no other of them does."""
    assert [k for k in GpuType if k and k != "any" and matches(k, name)] == [kind]


MIXED = [Gpu("a", "Tesla T4"), Gpu("b", "NVIDIA L4"), Gpu("c", "Tesla T4"), Gpu("d", "NVIDIA L4"), Gpu("e", "Tesla T4")]


@pytest.mark.parametrize(
    ("asked", "count", "picked"),
    [
        ("T4", 1, ("a",)),
        ("T4", 3, ("a", "c", "e")),
        ("T4", 4, ()),
        ("any", 2, ("b", "d")),
        ("any", 3, ("a", "c", "e")),
        ("any", 4, ("a", "b", "c", "d")),
        ("H100", 1, ()),
    ],
)
def test_devices_of_one_model_are_taken_together(asked: str, count: int, picked: tuple[str, ...]) -> None:
    """Those of the scarcest model that has enough, so that larger groups stay whole; mixed if need be."""
    assert pick(asked, count, MIXED) == picked
