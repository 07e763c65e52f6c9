"""How many containers there should be, and which leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.model.deployment import Autoscaler
from treadle.rules.autoscale import leaving, wanted


@pytest.mark.parametrize(
    ("unfinished", "per", "most", "least", "goal"),
    [
        (0, 1, 1, 0, 0),
        (1, 1, 1, 0, 1),
        (9, 1, 1, 0, 1),
        (9, 1, 5, 0, 5),
        (9, 3, 5, 0, 3),
        (10, 3, 5, 0, 4),
        (1, 1_000_000, 5, 0, 1),
        (0, 1, 5, 2, 2),
        (1, 1, 5, 2, 2),
        (3, 1, 5, 2, 3),
    ],
)
def test_the_formula(unfinished: int, per: int, most: int, least: int, goal: int) -> None:
    """min(ceil(unfinished / tasks_per_container), max_containers), and the least at any rate."""
    scale = Autoscaler(max_containers=most, tasks_per_container=per)
    assert wanted(unfinished, scale, least=least) == goal


IDLE = [("a", 5.0), ("b", 1.0), ("c", 9.0), ("d", 3.0)]


@pytest.mark.parametrize(
    ("surplus", "keep_warm", "now", "gone"),
    [
        (4, 0, 9.0, ["b", "d", "a", "c"]),
        (4, 5, 9.0, ["b", "d"]),
        (1, 0, 9.0, ["b"]),
        (0, 0, 9.0, []),
        (-3, 0, 9.0, []),
        (4, 10, 9.0, []),
        (4, 8, 9.0, ["b"]),
        (4, 60, -90.0, ["b", "d", "a", "c"]),
    ],
)
def test_the_longest_idle_leave_first(surplus: int, keep_warm: int, now: float, gone: list[str]) -> None:
    """As many as there are too many, and none before it has been idle for `keep_warm` seconds."""
    assert leaving(IDLE, surplus, keep_warm, now) == gone


@given(st.integers(0, 10**7), st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 1000))
def test_the_goal_is_within_its_bounds(unfinished: int, per: int, most: int, least: int) -> None:
    """Never over the most, never under the least, and something as soon as there is work."""
    least = min(least, most)
    goal = wanted(unfinished, Autoscaler(max_containers=most, tasks_per_container=per), least=least)
    assert least <= goal <= most
    assert goal >= (unfinished > 0)
