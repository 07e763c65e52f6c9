"""A backup as one file: a tar archive (POSIX.1-2001, pax); first it says what it is, last the sha256 of all in it.

So an archive that was cut off, or altered on the way, is known before anything of it is used.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from treadle.model.errors import InvalidInput

FORMAT = 1
HEAD, SUMS = "backup.json", "sums.json"  # the first member and the last
BLOCK = 512  # of tar: headers are of this size, contents are filled up to it
CHUNK = 256 * 1024  # bytes
MAX_TOLD = 16 * 1024 * 1024  # bytes of HEAD and of SUMS
ADVICE = "It is no backup of `treadle backup`, or was cut off or altered since: use another one."

Told = Callable[[int], None]


class Head(msgspec.Struct, frozen=True):
    """What a backup is of. `created_at` is the moment it shows, in Unix seconds."""

    format: int
    treadle: str  # version of the program
    schema: int  # of the database
    created_at: float


class Sums(msgspec.Struct, frozen=True):
    """The sha256 of each member but this one, and names of blobs that should have been there."""

    sha256: dict[str, str]
    missing: list[str] = []


class Member(msgspec.Struct, frozen=True):
    """A file to put in: its bytes come from `read`, in pieces, and are so many."""

    name: str
    size: int
    read: Callable[[], Iterator[bytes]]


class Archive:
    """Writes an archive as blocks of bytes; `size` is how many there will be in all."""

    def __init__(self, head: Head, members: Sequence[Member], missing: Sequence[str] = ()) -> None:
        first = msgspec.json.encode(head)
        self._members = [_of_bytes(HEAD, first), *members]
        self._missing = list(missing)
        self._time = int(head.created_at)
        last = self._sums({member.name: "0" * 64 for member in self._members})
        self.size = sum(self._length(member) for member in [*self._members, last]) + 2 * BLOCK

    def blocks(self) -> Iterator[bytes]:
        """The bytes, once.

        Raises:
            OSError: a file has become shorter or longer than it was.
        """
        found: dict[str, str] = {}
        for member in self._members:
            digest = hashlib.sha256()
            yield from self._written(member, digest.update)
            found[member.name] = digest.hexdigest()
        yield from self._written(self._sums(found), lambda _block: None)
        yield bytes(2 * BLOCK)

    def _written(self, member: Member, told: Callable[[bytes], None]) -> Iterator[bytes]:
        yield self._header(member)
        left = member.size
        for block in member.read():
            told(block)
            left -= len(block)
            yield block
        if left:
            raise OSError(f"{member.name} has changed its size while it was read")
        yield bytes(-member.size % BLOCK)

    def _sums(self, found: dict[str, str]) -> Member:
        return _of_bytes(SUMS, msgspec.json.encode(Sums(found, self._missing)))

    def _length(self, member: Member) -> int:
        return len(self._header(member)) + member.size + -member.size % BLOCK

    def _header(self, member: Member) -> bytes:
        info = tarfile.TarInfo(member.name)
        info.size, info.mode, info.mtime = member.size, 0o600, self._time
        return info.tobuf(tarfile.PAX_FORMAT)


def _of_bytes(name: str, data: bytes) -> Member:
    return Member(name, len(data), lambda: iter((data,)))


def of_file(name: str, path: Path) -> Member:
    """A file of this machine as a member."""
    return Member(name, path.stat().st_size, lambda: _chunks(path))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            yield block


def is_one(file: BinaryIO) -> bool:
    """Whether this begins as a backup does."""
    return file.read(len(HEAD) + 1) == f"{HEAD}\0".encode()


def unpack(file: BinaryIO, place: Callable[[str], Path | None], told: Told) -> tuple[Head, Sums]:
    """Read an archive to its end, and put each member at the path that `place` gives its name.

    None: only to be checked. `place` raises for a name that may not be there. `told` gets bytes done.

    Raises:
        InvalidInput: it is no backup, of a newer format, cut off or altered; what was unpacked is void.
    """
    try:
        return _unpacked(file, place, told)
    except (tarfile.TarError, msgspec.MsgspecError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The backup cannot be read: {error}.", ADVICE) from error


def _unpacked(file: BinaryIO, place: Callable[[str], Path | None], told: Told) -> tuple[Head, Sums]:
    found: dict[str, str] = {}
    head = sums = None
    with tarfile.open(fileobj=file, mode="r|") as tar:  # a stream: nothing is read twice, nor sought
        for info in tar:
            content = tar.extractfile(info) if info.isfile() else None
            if content is None or sums is not None or info.name in found:
                raise InvalidInput(f"The backup holds {info.name[:200]!r}, which does not belong there.", ADVICE)
            if info.name == SUMS:
                sums = msgspec.json.decode(content.read(MAX_TOLD), type=Sums)
                continue
            if head is None:
                head, found[HEAD] = _head(info.name, content.read(MAX_TOLD))
                continue
            found[info.name] = _put(content, place(info.name), info.size, told)  # type: ignore[arg-type]
    if head is None or sums is None:
        raise InvalidInput("The backup ends before its end.", ADVICE)
    _compare(found, sums.sha256)
    return head, sums


def _head(name: str, data: bytes) -> tuple[Head, str]:
    if name != HEAD:
        raise InvalidInput(f"The file is no backup: it begins with {name[:200]!r}.", ADVICE)
    head = msgspec.json.decode(data, type=Head)
    if head.format > FORMAT:
        what = f"The backup has format {head.format}; this Treadle knows formats up to {FORMAT}."
        raise InvalidInput(what, f"Install Treadle {head.treadle}, which made it, or a newer one.")
    return head, hashlib.sha256(data).hexdigest()


def _put(content: BinaryIO, path: Path | None, size: int, told: Told) -> str:
    """Write a member, on disk before it counts; its sha256."""
    digest, left = hashlib.sha256(), size
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path or os.devnull, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if path else 0), 0o600)
    with os.fdopen(handle, "wb") as file:
        while block := content.read(CHUNK):
            digest.update(block)
            file.write(block)
            left -= len(block)
            told(len(block))
        if path is not None:
            file.flush()
            os.fsync(file.fileno())
    if left:
        raise EOFError("it ends in the middle of a file")
    return digest.hexdigest()


def _compare(found: dict[str, str], written: dict[str, str]) -> None:
    wrong = sorted(name for name in found.keys() | written.keys() if found.get(name) != written.get(name))
    if wrong:
        what = f"The backup is not as it was written: {wrong[0]!r}"
        raise InvalidInput(f"{what}{f' and {len(wrong) - 1} others' if wrong[1:] else ''} differ.", ADVICE)
