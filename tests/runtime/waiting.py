"""Waiting in tests: for a condition, with a deadline, in a loop of the test's own."""
# ruff: noqa: ASYNC110 - a file or a foreign process has no event to wait for

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any


def async_test(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a fresh event loop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
