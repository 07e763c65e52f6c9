"""Verbs on saved files: an output counts only while the attempt that saves it is the running one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from treadle.model.errors import Conflict, InvalidInput
from treadle.model.task import Output
from treadle.store.base import Store

MAX_NAME = 255


class SaveOutput(msgspec.Struct, frozen=True):
    """The bytes are in the blob store already; make them part of the task."""

    output_id: str
    task_id: str
    attempt: int
    name: str
    size: int
    key: str


class Outputs:
    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, now: float, requests: Sequence[SaveOutput]) -> list[Output | Conflict]:
        """Write outputs; refused for an attempt that is not running any more."""
        answers: list[Output | Conflict] = []
        for r in requests:
            output = Output(r.output_id, r.task_id, r.attempt, r.name, r.size, now, r.key)
            if self._store.insert_output(output):
                answers.append(output)
            else:
                answers.append(Conflict(f"Attempt {r.attempt} of task {r.task_id} is not running any more."))
        return answers


def check_output_name(name: str) -> str:
    """A base name without separators or control characters, at most 255 bytes of UTF-8."""
    fine = (
        name not in ("", ".", "..")
        and not any(c in "/\\" or ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in name)
        and len(name.encode()) <= MAX_NAME
    )
    if not fine:
        raise InvalidInput(
            f"Output name {name[:80]!r} is not allowed.", "Use a file name without slashes or control characters."
        )
    return name


def blob_key(task_id: str, output_id: str) -> str:
    """Where an output's bytes are; the name the user gave is no part of it."""
    return f"outputs/{task_id}/{output_id}"


def source_key(source_id: str) -> str:
    return f"sources/{source_id}.zip"
