"""Bytes under keys: what a blob store must do. Every implementation passes `tests/blob`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol


class Upload(Protocol):
    """Bytes on their way in; nothing is visible under the key before `commit` (which fsyncs)."""

    size: int

    def write(self, chunk: bytes) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None:
        """Drop what was written; harmless after `commit`."""
        ...


class Kept(NamedTuple):
    """Bytes under a key. `since`: Unix seconds, the last of them came then."""

    key: str
    since: float


class Blob(Protocol):
    """Keys are relative paths of `[A-Za-z0-9._-]` segments; anything else is refused with InvalidInput."""

    def start(self, key: str) -> Upload: ...
    def open(self, key: str) -> BinaryIO:
        """Raises NotFound."""
        ...

    def read(self, key: str, chunk: int = 256 * 1024) -> Iterator[bytes]: ...
    def size(self, key: str) -> int | None:
        """None when there is nothing under the key."""
        ...

    def delete(self, key: str) -> None:
        """Idempotent."""
        ...

    def walk(self, above: str) -> Iterator[Kept]:
        """What is below a key, in no order; of what comes or goes meanwhile, some."""
        ...
