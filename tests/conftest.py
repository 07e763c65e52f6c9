"""Holds the tests to their markers: what starts a process is marked `process` or `e2e`, so that `make unit` is quick.

Hypothesis is given no deadlines: how long an example takes on a busy machine says nothing about the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})
MARKERS = ("process", "e2e")

settings.register_profile("treadle", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("treadle")

_unit: list[str] = []  # the test that is running, if it may start no process


def _look(event: str, _args: object) -> None:
    if event in STARTS and _unit:
        raise AssertionError(f"{_unit[-1]} starts a process ({event}): mark it with pytest.mark.process")


sys.addaudithook(_look)


@pytest.fixture(autouse=True)
def _held_to_its_marker(request: pytest.FixtureRequest) -> Iterator[None]:
    if any(request.node.get_closest_marker(name) for name in MARKERS):
        yield
        return
    _unit.append(request.node.name)
    yield
    _unit.pop()
