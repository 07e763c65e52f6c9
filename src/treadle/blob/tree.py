"""A folder that others change meanwhile, used without leaving it: no link in it is followed, whatever it leads to.

Each step down a path is opened relative to the folder before it, with O_NOFOLLOW (openat(2)), so that nothing that is
exchanged for a link between a check and its use can lead outside.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from treadle import depths
from treadle.depths import FOLDER
from treadle.model.errors import Conflict, InvalidInput, NotFound, TooLarge, TreadleError

MAX_PATH = 4096  # bytes
MAX_ENTRIES = 100_000  # of one list
MAX_DEPTH = 100  # folders in folders of one list
# A file's time is its writer's choice; these are told in any time zone: the years 1000 and 9999, in Unix seconds.
EARLIEST, LATEST = -30_610_224_000.0, 253_370_764_800.0
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: it may be a pipe


class Entry(msgspec.Struct, frozen=True):
    """What is at a path. `kind`: file, folder, link or other; of links and others nothing can be read."""

    path: str
    kind: str
    size: int  # bytes; 0 unless it is a file
    modified: float  # Unix seconds, from EARLIEST to LATEST


class Tree:
    """The folder `root`. `incoming` is one on the same file system, where uploads grow before they get their name.

    Paths are relative, with slashes; "" is the folder itself.

    Raises:
        InvalidInput: a path has a form that none may have.
        NotFound, Conflict: nothing is there; what is there does not allow it.
    """

    def __init__(self, root: Path, incoming: Path) -> None:
        self._root = root
        self._incoming = incoming
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def look(self, path: str) -> Entry:
        """What is at a path."""
        parts = split(path)
        if not parts:
            return _entry("", self._root.stat())
        with self._told(path), self._folder(parts[:-1]) as folder:
            return _entry("/".join(parts), os.stat(parts[-1], dir_fd=folder, follow_symlinks=False))

    def entries(self, path: str, *, deep: bool = False) -> list[Entry]:
        """What is in a folder, with `deep` also in those below it, by path; of anything else the one entry.

        Raises:
            TooLarge: it is more than MAX_ENTRIES, or nested deeper than MAX_DEPTH.
        """
        if self.look(path).kind != "folder":
            return [self.look(path)]
        found: list[Entry] = []
        with self._told(path), self._folder(split(path)) as folder:
            _collect(folder, "".join(f"{part}/" for part in split(path)), found, deep=deep)
        return sorted(found, key=lambda entry: entry.path)

    def open(self, path: str) -> tuple[BinaryIO, int]:
        """A file to read from, and its size."""
        with self._told(path), self._folder(_named(path)[:-1]) as folder:
            handle = os.open(_named(path)[-1], _FILE, dir_fd=folder)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            os.close(handle)
            raise Conflict(f"{path[:200]!r} is not a file.", "Name a file.")
        return os.fdopen(handle, "rb"), status.st_size

    def start(self, path: str) -> TreeUpload:
        """Take in a file, which is seen at its path when it is whole."""
        return TreeUpload(self, _named(path), self._incoming)

    def remove(self, path: str, *, deep: bool = False) -> None:
        """Remove a file, an empty folder, or with `deep` a folder with all that is in it; links themselves."""
        parts = _named(path)
        kind = self.look(path).kind
        with self._told(path), self._folder(parts[:-1]) as folder:
            if kind != "folder":
                os.unlink(parts[-1], dir_fd=folder)
            elif deep:
                depths.remove(parts[-1], folder=folder)
            else:
                os.rmdir(parts[-1], dir_fd=folder)

    def move(self, path: str, other: Tree, target: str) -> None:
        """Give what is at a path another one, in this tree or another; a file there is replaced."""
        parts, end = _named(path), _named(target)
        with self._told(path), self._folder(parts[:-1]) as folder, other._folder(end[:-1], make=True) as into:
            os.rename(parts[-1], end[-1], src_dir_fd=folder, dst_dir_fd=into)

    def usage(self) -> tuple[int, int]:
        """How many files there are, and their bytes together."""
        files = size = 0
        with suppress(OSError), self._folder([]) as root:  # moved meanwhile: it is counted up to there
            for found in depths.walk(root):
                with suppress(FileNotFoundError):  # removed meanwhile
                    if not found.is_folder:
                        size += os.stat(found.name, dir_fd=found.folder, follow_symlinks=False).st_size
                        files += 1
        return files, size

    @contextmanager
    def _folder(self, parts: list[str], *, make: bool = False) -> Iterator[int]:
        """The folder at these steps below the root, open."""
        handle = os.open(self._root, FOLDER)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=handle)
                below = os.open(part, FOLDER, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Errors of the system, as ours."""
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"There is nothing at {path[:200]!r}.", "`treadle ls` shows what there is.") from None
        except OSError as error:
            raise _refusal(path, error) from None


class TreeUpload:
    """Implements `blob.base.Upload`."""

    def __init__(self, tree: Tree, parts: list[str], incoming: Path) -> None:
        self.size = 0
        self._tree, self._parts = tree, parts
        incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=incoming)
        self._part: Path | None = Path(name)  # None once it is renamed or removed
        self._file = os.fdopen(handle, "wb")
        os.fchmod(handle, 0o644)

    def write(self, chunk: bytes) -> None:
        with self._tree._told("/".join(self._parts)):
            self._file.write(chunk)
        self.size += len(chunk)

    def commit(self) -> None:
        """On disk first, then at its path."""
        assert self._part is not None, "an upload is committed once"
        with self._tree._told("/".join(self._parts)):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            with self._tree._folder(self._parts[:-1], make=True) as folder:
                os.rename(self._part, self._parts[-1], dst_dir_fd=folder)
                os.fsync(folder)
        self._part = None

    def abort(self) -> None:
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None
            with suppress(OSError):  # a full disk: the bytes still held are not wanted any more
                self._file.close()


def split(path: str) -> list[str]:
    """The steps of a path.

    Raises:
        InvalidInput: it leads upwards, or no file could have it.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    broken = "\0" in path or any(0xD800 <= ord(c) < 0xE000 for c in path)
    if ".." in parts or broken or len(path.encode(errors="replace")) > MAX_PATH:
        raise InvalidInput(
            f"{path[:200]!r} is not a path in a volume.", f"Use at most {MAX_PATH} bytes, without '..' and NUL."
        )
    return parts


def _named(path: str) -> list[str]:
    """The steps of a path that names something inside."""
    parts = split(path)
    if not parts:
        raise InvalidInput("The volume itself is not a file.", "Name a file or folder in it.")
    return parts


def _collect(folder: int, prefix: str, found: list[Entry], *, deep: bool) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(found) >= MAX_ENTRIES or prefix.count("/") > MAX_DEPTH:
                what = f"There are more than {MAX_ENTRIES} files, or {MAX_DEPTH} folders in one another."
                raise TooLarge(what, "List one of the folders below.")
            with suppress(FileNotFoundError):  # removed meanwhile
                shown = os.fsencode(entry.name).decode(errors="replace")
                found.append(_entry(prefix + shown, entry.stat(follow_symlinks=False)))
                if deep and found[-1].kind == "folder":
                    below = os.open(entry.name, FOLDER, dir_fd=folder)
                    try:
                        _collect(below, f"{prefix}{shown}/", found, deep=True)
                    finally:
                        os.close(below)


def _entry(path: str, status: os.stat_result) -> Entry:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    modified = min(max(status.st_mtime, EARLIEST), LATEST)
    return Entry(path, kind, status.st_size if kind == "file" else 0, modified)


def _refusal(path: str, error: OSError) -> TreadleError:
    """What the system has refused."""
    shown = repr(path[:200])
    match error.errno:
        case errno.ENOTDIR | errno.ELOOP:
            return Conflict(f"{shown} leads over a file or a link.", "Links in a volume are not followed.")
        case errno.ENOTEMPTY:
            return Conflict(f"The folder {shown} is not empty.", "Add --recursive to remove all that is in it.")
        case errno.EISDIR | errno.EEXIST:
            return Conflict(f"{shown} cannot take the place of a folder.", "Use another path.")
        case errno.ENAMETOOLONG:
            return InvalidInput(f"{shown} has a name that is too long for a file.", "Use at most 255 bytes.")
        case errno.EINVAL:
            return Conflict(f"{shown} cannot be moved into itself.", "Use another path.")
    return TreadleError(f"{shown}: the server cannot do that: {error.strerror}.", "Its disk may be full.")
