"""The script of a user: enqueues from Python with `put`, `put_many` and `result`. Prints one JSON object to stderr.

Its standard output, where `put` says what it enqueued, goes where the one who starts it sends it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

from queues import marked, noop  # type: ignore[import-not-found]  # the folder that was deployed from

PAUSE = (0.02, 0.06)  # seconds between samples


def loop(count: int) -> dict[str, Any]:
    """`put` in a loop."""
    noop.put(n=1)  # makes the draft
    began = time.perf_counter()
    handles = [noop.put(n=1) for _ in range(count)]
    ended = time.perf_counter()
    return {"began": began, "ended": ended, "last_ids": [handle.id for handle in handles[-200:] if handle]}


def many(count: int) -> dict[str, Any]:
    """`put_many` of a thousand, so often that `count` tasks are enqueued."""
    noop.put(n=1)
    items = [{"n": 1}] * 1000
    began = time.perf_counter()
    for _ in range(count // 1000):
        handles = noop.put_many(items)
    ended = time.perf_counter()
    return {"began": began, "ended": ended, "last_ids": [handle.id for handle in handles[-200:]]}


def wait(count: int, pause: bool = True) -> dict[str, Any]:
    """`put` and `result(wait=True)`, so many times, with pauses: seconds until the result is in hand."""
    took: list[float] = []
    put_at: list[float] = []
    for _ in range(count + 10):
        put_at.append(time.time())
        handle = marked.put()
        assert handle
        handle.result(wait=True, timeout=30)
        took.append(time.time() - put_at[-1])
        if pause:
            time.sleep(random.uniform(*PAUSE))  # noqa: S311
    return {"took": took[10:], "put_at": put_at[10:]}


def call(count: int) -> dict[str, Any]:
    """The same without pauses: as a program does that needs one result after the other."""
    return wait(count, pause=False)


def main() -> None:
    what, count = {"loop": loop, "many": many, "wait": wait, "call": call}[sys.argv[1]], int(sys.argv[2])
    print(json.dumps(what(count)), file=sys.stderr)


if __name__ == "__main__":
    main()
