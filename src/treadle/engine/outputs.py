"""Verbs on saved files: an output counts only while the attempt that saves it is the running one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import msgspec

from treadle.blob.base import Blob
from treadle.model.errors import Conflict, InvalidInput
from treadle.model.task import Output
from treadle.store.base import Store

MAX_NAME = 255  # bytes
OUTPUTS, SOURCES = "outputs", "sources"  # where their bytes are
ROW_SECONDS = 3600.0  # bytes are there first, and then, in a moment, their row
SEPARATORS = "/\\"
CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # general categories of Unicode
TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the other way round from here on


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
    """A base name without separators or control characters, at most 255 bytes of UTF-8.

    Nor with those that make a name look like another: of both directions of writing, and of lines and paragraphs.
    """
    if name in ("", ".", "..") or any(map(_is_odd, name)) or len(name.encode()) > MAX_NAME:
        allowed = f"1-{MAX_NAME} bytes of UTF-8 without slashes and control characters, not '.' or '..'"
        raise InvalidInput(f"Output name {name[:80]!r} is not allowed.", f"Allowed: {allowed}.")
    return name


def _is_odd(character: str) -> bool:
    return character in SEPARATORS or unicodedata.category(character) in CONTROLS or character in TURNING


def blob_key(task_id: str, output_id: str) -> str:
    """Where an output's bytes are; the name the user gave is no part of it."""
    return f"{OUTPUTS}/{task_id}/{output_id}"


def id_in(key: str) -> str:
    """Of the output whose bytes are there."""
    return key.rpartition("/")[2]


def source_key(source_id: str) -> str:
    return f"{SOURCES}/{source_id}.zip"


def old_enough(blob: Blob, above: str, now: float) -> Iterator[str]:
    """The keys below OUTPUTS or SOURCES that must have a row by now, unless whoever has put them there was killed."""
    return (kept.key for kept in blob.walk(above) if kept.since < now - ROW_SECONDS)
