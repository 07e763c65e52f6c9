"""What reaches the disk in which order: syncs and renames as the operating system is asked for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Step = tuple[str, Path]


class Order:
    """`steps`: ("sync", path), ("name", path) for a rename to it, and words of the test's own, in order.

    `sizes`: of what was synced, at that moment. `sources`: what a renamed file was called before.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.sizes: dict[Path, int] = {}
        self.sources: dict[Path, Path] = {}

    def note(self, what: str, path: Path = Path()) -> None:
        self.steps.append((what, path))

    def is_on_disk_before(self, target: Path, size: int, folders: list[Path], then: Step) -> bool:
        """Whether a file's bytes, then its name, then the folders of the name were on disk when `then` came."""
        assert target in self.sources, f"{target} was not renamed into place: {self.steps}"
        part = self.sources[target]
        before = self.steps[: self.steps.index(then)]
        named = before.index(("name", target))
        bytes_first = ("sync", part) in before[:named] and self.sizes[part] == size
        return bytes_first and all(("sync", folder) in before[named:] for folder in folders)


@contextmanager
def recorded() -> Iterator[Order]:
    """All calls go through to the system. Linux alone tells which file a handle is of."""
    order = Order()
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        path, size = Path(f"/proc/self/fd/{handle}").readlink(), os.fstat(handle).st_size
        sync(handle)
        order.sizes[path] = size
        order.note("sync", path)

    def named(source: Any, target: Any, **more: Any) -> None:
        replace(source, target, **more)
        order.sources[Path(target)] = Path(source)
        order.note("name", Path(target))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "replace", named)
        yield order
