"""Files in a container's folder, for the agent: read and written as if whoever runs in there could change them.

At isolation level 0 it can. Above, they are out of its reach, or it may fill them with what it likes and nothing more
(runtime/docker.py).
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MOST = 16 * 1024 * 1024  # bytes of a file that is read whole


def read(path: Path) -> bytes:
    """A file, whole.

    Raises:
        OSError: it is not there, is a link, a pipe or whatever else is no file, or has more than MOST bytes.
    """
    with _opened(path) as file:
        data = file.read(MOST + 1)
    if len(data) > MOST:
        raise OSError(errno.EFBIG, f"It has more than {MOST} bytes", str(path))
    return data


def end_of(path: Path, most: int) -> bytes:
    """The last bytes of a file, at most so many; none where there is no file, or a link or a pipe in its place."""
    try:
        with _opened(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read(most)
    except OSError:
        return b""


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Without waiting: for a pipe's writer, or for whoever has a lease on the file."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is no file", str(path))
        yield file


def sheet(data: bytes) -> BinaryIO:
    """An open file without a name, for another process to read; in memory alone where there is memfd_create(2)."""
    there = hasattr(os, "memfd_create")
    file = os.fdopen(os.memfd_create("sheet"), "w+b") if there else tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    file.flush()
    return file


def write_private(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, readable by its owner alone; a link in its place is not followed."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)
