"""Folders that others have filled: walked through and removed however deep they are, without leaving them.

What is in a folder that a task may write into is the task's choice: folders in one another by the thousand, paths
longer than the system takes, links to anywhere. Here nothing recurses, every step is one name relative to an open
folder (openat(2)) that follows no link, and at most three folders are open at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Where there is O_PATH (Linux) it needs no right on the folder itself.
_PLACE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Enter = Callable[[str, int], int]


class Found(NamedTuple):
    """One thing in a folder, which is open until the next is asked for."""

    folder: int
    name: str
    is_folder: bool


class _Level(NamedTuple):
    """A folder that is being walked through: its name in the one above, and what of it is still to come."""

    name: str
    identity: tuple[int, int]
    others: list[str]
    folders: list[str]


def enter(name: str, folder: int) -> int:
    """Open a folder in an open one."""
    return os.open(name, FOLDER, dir_fd=folder)


def walk(root: int, enter: Enter = enter) -> Iterator[Found]:
    """All that is below an open folder, each folder after what is in it; what cannot be entered, by itself.

    Raises:
        OSError: a folder in which the walk was has been moved elsewhere meanwhile.
    """
    here, trail = enter(".", root), list[_Level]()
    try:
        level = _level("", here)
        while True:
            while level.others:
                yield Found(here, level.others.pop(), is_folder=False)
            if level.folders:
                name = level.folders.pop()
                try:
                    below = enter(name, here)
                except OSError:
                    yield Found(here, name, is_folder=True)
                    continue
                os.close(here)
                here = below
                trail.append(level)
                level = _level(name, here)
            elif trail:
                above = _above(here, trail, root)
                os.close(here)
                here = above
                yield Found(here, level.name, is_folder=True)
                level = trail.pop()
            else:
                return
    finally:
        os.close(here)


def _level(name: str, folder: int) -> _Level:
    level = _Level(name, _identity(folder), [], [])
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            (level.folders if entry.is_dir(follow_symlinks=False) else level.others).append(entry.name)
    return level


def _identity(folder: int) -> tuple[int, int]:
    status = os.fstat(folder)
    return status.st_dev, status.st_ino


def _above(here: int, trail: list[_Level], root: int) -> int:
    """The folder that the walk came from: one step up, or by its names where that leads elsewhere or nowhere."""
    with suppress(OSError):  # a folder may be listed, but not be passed through
        above = os.open("..", FOLDER, dir_fd=here)
        if _identity(above) == trail[-1].identity:
            return above
        os.close(above)
    above = os.open(".", FOLDER, dir_fd=root)
    for level in trail[1:]:
        try:
            below = os.open(level.name, FOLDER, dir_fd=above)
        finally:
            os.close(above)
        above = below
    return above


def remove(path: str | Path, *, folder: int | None = None) -> None:
    """Remove what is at a path (in an open `folder`) with all that is in it, also where it is read-only.

    A link is removed and not followed; nothing there is nothing to do. What cannot be removed keeps no other from it.

    Raises:
        OSError: something could not be removed; the first.
    """
    failed: list[OSError] = []
    with suppress(FileNotFoundError):
        try:
            root = _unlocked(path, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            os.unlink(path, dir_fd=folder)
            return
        try:
            for found in walk(root, _unlocked):
                _remove(found, failed)
        finally:
            os.close(root)
        if failed:
            raise failed[0]
        os.rmdir(path, dir_fd=folder)


def _remove(found: Found, failed: list[OSError]) -> None:
    try:
        (os.rmdir if found.is_folder else os.unlink)(found.name, dir_fd=found.folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if not failed:
            failed.append(error)


def _unlocked(path: str | Path, folder: int | None) -> int:
    """Open a folder, with the right for its owner to empty it."""
    place = os.open(path, _PLACE, dir_fd=folder)
    try:
        if os.fstat(place).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            with suppress(OSError):  # another owner's: what that keeps from being removed is told
                Path(f"/proc/self/fd/{place}").chmod(stat.S_IRWXU)
        return os.open(".", FOLDER, dir_fd=place)
    finally:
        os.close(place)
