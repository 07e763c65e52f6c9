"""How many containers a deployment should have, and which idle ones leave."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from treadle.model.deployment import Autoscaler


def wanted(unfinished: int, scale: Autoscaler, *, least: int) -> int:
    """min(ceil(unfinished / tasks_per_container), max_containers), and `least` at any rate."""
    return max(min(ceil(unfinished / scale.tasks_per_container), scale.max_containers), least)


def leaving(idle: Iterable[tuple[str, float]], surplus: int, keep_warm: float, now: float) -> list[str]:
    """Of the idle containers (id, idle since), at most `surplus` that have been idle for `keep_warm` seconds.

    The longest idle ones leave first. A time far ahead was written before the clock was set back: long ago.
    """
    over = sorted((since, container_id) for container_id, since in idle if abs(now - since) >= keep_warm)
    return [container_id for _, container_id in over[: max(surplus, 0)]]
