"""Blobs as files under one folder. One DiskBlob at a time has the folder."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from treadle.blob.base import Kept
from treadle.model.errors import Conflict, InvalidInput, NoSpace, NotFound

SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,255}")
MAX_KEY = 1024
INCOMING = ".incoming"


class DiskBlob:
    """Implements `blob.base.Blob`. Uploads grow in `root/.incoming/` and are renamed into place when complete."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / INCOMING
        self._named = False  # whether the root's own name is known to be on disk

    def sweep(self) -> None:
        """Remove what a server has left that was killed in the middle of an upload."""
        if self._incoming.is_dir():
            for left in self._incoming.iterdir():
                left.unlink()

    def start(self, key: str) -> DiskUpload:
        path = self._path(key)
        self._incoming.mkdir(parents=True, exist_ok=True)
        if not self._named:
            _sync(self._root.parent)
            self._named = True
        return DiskUpload(self._root, path, self._incoming)

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"There is nothing under the key {key!r}.", "It may have been deleted.")
        return path.open("rb")

    def read(self, key: str, chunk: int = 256 * 1024) -> Iterator[bytes]:
        """Opens at once, so that a missing key is told by the call and not by the first chunk."""
        return _chunks(self.open(key), chunk)

    def size(self, key: str) -> int | None:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def delete(self, key: str) -> None:
        path = self._path(key)
        if path.is_file():
            path.unlink(missing_ok=True)

    def walk(self, above: str) -> Iterator[Kept]:
        for folder, _, names in os.walk(self._path(above)):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    yield Kept(str(path.relative_to(self._root)), path.stat().st_mtime)

    def _path(self, key: str) -> Path:
        """Where a key's bytes are: always below the root and never among the incoming.

        Raises:
            InvalidInput: the key has another form than `segment/segment/…`.
        """
        segments = key.split("/")
        good = all(SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments)
        if not good or segments[0] == INCOMING or len(key) > MAX_KEY:
            raise InvalidInput(
                f"{key[:MAX_KEY]!r} is not a blob key.",
                "Allowed: segments of 1-255 letters, digits, '.', '_' or '-', joined by '/', "
                f"together at most {MAX_KEY} characters; not '.', '..', or {INCOMING!r} first.",
            )
        return self._root.joinpath(*segments)


class DiskUpload:
    """Implements `blob.base.Upload`."""

    def __init__(self, root: Path, target: Path, incoming: Path) -> None:
        self.size = 0
        self._root, self._target = root, target
        with _room():
            handle, name = tempfile.mkstemp(dir=incoming)
        self._part: Path | None = Path(name)  # None once it is renamed or removed
        self._file = os.fdopen(handle, "wb")

    def write(self, chunk: bytes) -> None:
        with _room():
            self._file.write(chunk)
        self.size += len(chunk)

    def commit(self) -> None:
        """Bytes first, then their name, then the folders that hold the name: each on disk before the next.

        Raises:
            Conflict: the upload has ended already, or the key lies below or above another key.
        """
        if self._part is None or self._file.closed:
            raise Conflict("This upload has been committed or aborted already.", "Start another one.")
        with _room():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._place()

    def _place(self) -> None:
        assert self._part is not None
        self._file.close()
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._part.replace(self._target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            key = str(self._target.relative_to(self._root))
            raise Conflict(f"The blob key {key!r} lies below or above another key.", "Use another key.") from error
        self._part = None
        for folder in self._target.relative_to(self._root).parents:  # the last one is ".", the root
            _sync(self._root / folder)

    def abort(self) -> None:
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None
            with suppress(OSError):  # a full disk: the bytes still held are not wanted any more
                self._file.close()


@contextmanager
def _room() -> Iterator[None]:
    """Tell a full disk, or a used up quota, in words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace from error
        raise


def _chunks(file: BinaryIO, chunk: int) -> Iterator[bytes]:
    with file:
        while part := file.read(chunk):
            yield part


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
