"""How ids stand in the rows of tasks: a task's as the 16 bytes of its UUID, others as the numbers of their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.model.errors import NotFound

LENGTH = 36  # of a UUID as text


def pack_id(task_id: str) -> bytes | str:
    """What stands for this id; an id that is no UUID stands for itself."""
    if len(task_id) == LENGTH:
        try:
            packed = bytes.fromhex(task_id.replace("-", ""))
        except ValueError:
            return task_id
        if len(packed) == 16:
            return packed
    return task_id


def unpack_id(packed: bytes | str) -> str:
    """The id again."""
    if isinstance(packed, str):
        return packed
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_text(column: str) -> str:
    """The same in SQL, for what tells people of a task."""
    digits = f"lower(hex({column}))"
    parts = (f"substr({digits}, {first}, {count})" for first, count in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12)))
    text = " || '-' || ".join(parts)
    return f"IIF(typeof({column}) = 'blob', {text}, {column})"


class Numbers:
    """The numbers of deployments or containers, remembered: each task that is written needs them."""

    def __init__(self, look_up: Callable[[str], int | None], what: str) -> None:
        self._look_up = look_up
        self._what = what
        self._known: dict[str, int | None] = {"": None}

    def seq(self, row_id: str) -> Any:
        """None for no id at all.

        Raises:
            NotFound: the store has no such row.
        """
        try:
            return self._known[row_id]
        except KeyError:
            found = self._look_up(row_id)
        if found is None:
            raise NotFound(f"The store has no {self._what} {row_id!r}.", "Insert it before the tasks that name it.")
        self._known[row_id] = found
        return found

    def forget(self) -> None:
        """After a rollback, or when rows were deleted."""
        self._known = {"": None}
