"""How Docker and Podman are asked for GPUs."""

from __future__ import annotations

import pytest

from treadle.runtime.docker import devices


@pytest.mark.parametrize(
    ("program", "gpus", "arguments"),
    [
        ("docker", (), []),
        ("docker", ("GPU-a",), ["--gpus", '"device=GPU-a"']),
        ("/usr/bin/docker", ("GPU-a", "GPU-b"), ["--gpus", '"device=GPU-a,GPU-b"']),
        ("podman", (), []),
        ("podman", ("GPU-a", "GPU-b"), ["--device", "nvidia.com/gpu=GPU-a", "--device", "nvidia.com/gpu=GPU-b"]),
    ],
)
def test_an_engine_is_asked_for_these_devices_alone(program: str, gpus: tuple[str, ...], arguments: list[str]) -> None:
    """By UUID, in the engine's own way; for none, nothing is said."""
    assert devices(program, gpus) == arguments
