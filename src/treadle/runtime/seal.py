"""Folders that many containers share: made read-only, weighed, and removed all the same."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec

from treadle import depths

GONE = ".gone-"  # prefix of folders that are being removed
_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_OWNERS = stat.S_IRWXU
_BLOCK = 512  # bytes, the unit of st_blocks


class Weight(msgspec.Struct, frozen=True):
    """Bytes on disk: all files once, and those of them that nothing outside links to (`own`)."""

    size: int = 0
    own: int = 0


def seal(root: Path) -> None:
    """Take everybody's right to write from everything below, the folder included.

    Packages are hardlinks into uv's cache, so its copies become read-only too: what a container could write here
    would be in every image that has the file. uv itself only adds files and removes them.
    """
    for name, _, files in os.walk(root):
        folder = Path(name)
        for path in (folder, *(folder / file for file in files)):
            mode = path.lstat().st_mode
            if mode & _WRITE and not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode) & ~_WRITE)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Let the owner add and replace files in one sealed folder."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(mode | stat.S_IWUSR)
    try:
        yield
    finally:
        folder.chmod(mode)


def remove(root: Path) -> None:
    """Remove a folder, sealed or not. It is out of the way at once: nobody finds half of it."""
    gone = root if root.name.startswith(GONE) else root.with_name(f"{GONE}{uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        root.chmod(_OWNERS)  # a folder that its owner may not write into cannot be renamed
        root.rename(gone)
    with contextlib.suppress(OSError):  # what stays has a name by which a sweep finds it
        depths.remove(gone)


def weigh(root: Path) -> Weight:
    """What a folder takes on disk."""
    links: dict[tuple[int, int], tuple[int, int, int]] = {}  # inode: links found, links there are, bytes
    size = own = 0
    for name, _, files in os.walk(root):
        folder = Path(name)
        taken = folder.stat().st_blocks * _BLOCK
        size, own = size + taken, own + taken
        for path in (folder / file for file in files):
            with contextlib.suppress(FileNotFoundError):  # bytecode comes and goes while it is compiled
                found = path.lstat()
                inode = (found.st_dev, found.st_ino)
                links[inode] = (links.get(inode, (0,))[0] + 1, found.st_nlink, found.st_blocks * _BLOCK)
    size += sum(held for _, _, held in links.values())
    own += sum(held for seen, there, held in links.values() if seen == there)
    return Weight(size, own)
