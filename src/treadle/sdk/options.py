"""Small values that the decorator takes: how a task is retried and bounded, and how a queue scales."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class TaskPolicy:
    """Bounds of a task; a value that is not zero overrides the decorator's.

    `ttl`: seconds a task may wait before it expires (0: no limit). `retry_delay`: seconds before the first retry;
    the delay doubles from retry to retry up to `retry_delay_max`.
    """

    max_retries: int = 0
    timeout: int = 0
    ttl: int = 0
    retry_delay: float = 1.0
    retry_delay_max: float = 60.0


@dataclass(frozen=True)
class QueueDepthAutoscaler:
    """Containers wanted: unfinished tasks / tasks_per_container, rounded up, within the two bounds."""

    max_containers: int = 1
    tasks_per_container: int = 1
    min_containers: int = 0


class PythonVersion(StrEnum):
    """Beam's names of Python versions; a plain string such as "python3.12" does as well."""

    Python3 = "python3"
    Python38 = "python3.8"
    Python39 = "python3.9"
    Python310 = "python3.10"
    Python311 = "python3.11"
    Python312 = "python3.12"


class GpuType(StrEnum):
    """Beam's names of GPUs; any other name that the machine's driver reports does as well."""

    NoGPU = ""
    Any = "any"
    T4 = "T4"
    L4 = "L4"
    A10G = "A10G"
    A100_40 = "A100-40"
    A100_80 = "A100-80"
    H100 = "H100"
    H200 = "H200"
    B200 = "B200"
    RTX4090 = "RTX4090"
    RTX5090 = "RTX5090"
