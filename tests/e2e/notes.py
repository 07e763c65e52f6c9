"""What user code in containers leaves for the tests, and how both wait for each other: through files in one folder.

`place.share_notes()` copies this file beside the user code, so that handlers may `from notes import note, gate, meet`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

DEADLINE = 60.0


def note(folder: str, event: str, **more: Any) -> None:
    """Add a line to the folder's ledger: who says what, and when. One write to a file opened to append is whole."""
    line = {
        "task": os.environ.get("TASK_ID", ""),
        "attempt": int(os.environ.get("TASK_ATTEMPT", "0")),
        "event": event,
        "pid": os.getpid(),
        "container": os.environ.get("CONTAINER_ID", ""),
        "at": time.monotonic(),  # the same clock in every process of a machine
        **more,
    }
    with Path(folder, "ledger").open("ab", buffering=0) as ledger:
        ledger.write(json.dumps(line).encode() + b"\n")


def ledger(folder: Path | str, event: str | None = None) -> list[dict[str, Any]]:
    """The folder's lines so far, oldest first; only those of one event if it is named."""
    path = Path(folder, "ledger")
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if event in (None, line["event"])]


def gate(folder: str, name: str = "gate") -> None:
    """Wait until the test has opened the gate."""
    _until(lambda: Path(folder, name).exists(), f"gate {name}")


def open_gate(folder: Path, name: str = "gate") -> None:
    (folder / name).touch()


def meet(folder: str, count: int) -> None:
    """A barrier: return once `count` processes are in here at the same time."""
    mine = Path(folder, f"met-{os.getpid()}-{os.environ['TASK_ID']}")
    mine.touch()
    _until(lambda: len(list(Path(folder).glob("met-*"))) >= count, f"meeting of {count}")


def overlaps(lines: list[dict[str, Any]]) -> list[str]:
    """Ids of tasks that user code ran twice at the same time, told from `start`, `alive` and `end` lines."""
    spans: dict[tuple[str, int], list[float]] = {}
    for line in lines:
        span = spans.setdefault((line["task"], line["attempt"]), [line["at"], line["at"]])
        span[0], span[1] = min(span[0], line["at"]), max(span[1], line["at"])
    ordered = sorted((task, start, end) for (task, _), (start, end) in spans.items())
    return [task for (task, _, end), (other, start, _) in pairwise(ordered) if task == other and start <= end]


def _until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {DEADLINE:.0f} s")
        time.sleep(0.005)
