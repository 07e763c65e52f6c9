"""Packed sources on this machine: fetched once, checked member by member, unpacked once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile, mkdtemp
from typing import BinaryIO

from treadle.depths import remove
from treadle.model.errors import InvalidInput, TooLarge

MAX_FILES = 100_000
MAX_BYTES = 4 * 1024**3
MAX_PATH = 4096  # bytes of a member's path
MAX_LIST = 64 * 1024 * 1024  # bytes of the archive's own list of its files
BLOCK = 1024 * 1024
# What zipfile raises for archives that it cannot read: damaged, encrypted, of other compressions, with odd names.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
IMPOSSIBLE = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ)
TAIL = 22 + 65535 + 20 + 56  # bytes at the end in which zipfile finds the list's size: both end records, a comment
ZIP64 = 0xFFFFFFFF  # in place of a size: the ZIP64 record has it
_END = re.compile(rb"PK\x05\x06(?=.{18})", re.DOTALL)
_END_64 = re.compile(rb"PK\x06\x06(?=.{52})", re.DOTALL)
_LIST_SIZE, _LIST_SIZE_64 = struct.Struct("<L"), struct.Struct("<Q")

_ID = re.compile(r"[0-9a-f]{64}")
_RESEND = "Deploy again, so that the source is packed and uploaded anew."

Fetch = Callable[[str, BinaryIO], None]


class Sources:
    """The unpacked sources in one folder. `fetch` writes the archive of a source id into a file."""

    def __init__(self, root: Path, fetch: Fetch) -> None:
        self._root = root
        self._fetch = fetch
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(".new-*"):
            with contextlib.suppress(OSError):  # the next agent tries again
                remove(leftover)

    def ensure(self, source_id: str) -> Path:
        """The folder of a source.

        Raises:
            InvalidInput: the archive is not the one named, or a member has no business in it.
            TooLarge: it holds more files or bytes than allowed.
        """
        if not _ID.fullmatch(source_id):
            raise InvalidInput(f"{source_id!r} is not the id of a source (64 hexadecimal digits).", _RESEND)
        target = self._root / source_id
        with self._lock:
            if not target.is_dir():
                self._bring(source_id, target)
        return target

    def _bring(self, source_id: str, target: Path) -> None:
        draft = Path(mkdtemp(prefix=".new-", dir=self._root))
        try:
            with TemporaryFile(dir=self._root) as archive:
                self._fetch(source_id, archive)
                archive.seek(0)
                found = hashlib.file_digest(archive, "sha256").hexdigest()
                if found != source_id:
                    raise InvalidInput(f"The source {source_id} arrived with the digest {found}.", _RESEND)
                unpack(archive, draft)
            draft.replace(target)
        finally:
            with contextlib.suppress(OSError):  # as above
                remove(draft)


def unpack(archive: BinaryIO, target: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a zip of plain files below `target`; every member is checked before any is written."""
    _check_list(archive)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            _check_count(members, max_files)
            places = [_place(member, target) for member in members]
            left = max_bytes
            for member, place in zip(members, places, strict=True):
                left = _write(packed, member, place, left, max_bytes)
    except DAMAGE as error:
        raise InvalidInput(f"The source is not a readable zip archive: {error}.", _RESEND) from error
    except OSError as error:
        if error.errno not in IMPOSSIBLE:
            raise
        said = f"The source has a name that cannot be used beside its others: {error.strerror}."
        raise InvalidInput(said, _RESEND) from error


def _check_list(archive: BinaryIO) -> None:
    """Refuse a list of members that would fill the memory before anybody could count them.

    Its size is what zipfile goes by: the end record's, or the ZIP64 one's (APPNOTE.TXT 4.3.14 and 4.3.16). Either may
    lie anywhere in what zipfile looks through; the largest size that is told counts.
    """
    start = max(archive.seek(0, 2) - TAIL, 0)
    archive.seek(start)
    tail = archive.read()
    archive.seek(0)
    told = [_LIST_SIZE.unpack_from(tail, match.end() + 8)[0] for match in _END.finditer(tail)]
    told = [size for size in told if size != ZIP64]
    told += [_LIST_SIZE_64.unpack_from(tail, match.end() + 36)[0] for match in _END_64.finditer(tail)]
    if max(told, default=0) > MAX_LIST:
        raise TooLarge(f"The list of the source's files takes {max(told)} bytes; {MAX_LIST} are allowed.", _smaller())


def _check_count(members: list[zipfile.ZipInfo], limit: int) -> None:
    """Folders count, also those that only names of files imply. Each is known by its parent's number and its name."""
    numbers: dict[tuple[int, str], int] = {}
    for member in members:
        at = 0
        for part in PurePosixPath(member.filename).parts:
            at = numbers.setdefault((at, part), len(numbers) + 1)
            if len(numbers) > limit:
                raise TooLarge(f"The source has more than {limit} files and folders, which is the limit.", _smaller())


def _smaller() -> str:
    return "Add what the handler does not need to .treadleignore."


def _place(member: zipfile.ZipInfo, target: Path) -> Path:
    """Where a member goes; refused unless it is a plain file or folder that stays below `target`."""
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidInput(f"The source's member {member.filename!r} is a link or a device.", _RESEND)
    if len(member.filename.encode(errors="replace")) > MAX_PATH:
        raise InvalidInput(f"The source has a path of over {MAX_PATH} bytes: {member.filename[:80]!r}….", _RESEND)
    outside = name.is_absolute() or ".." in name.parts or "\\" in member.filename or not name.parts
    if outside or not (target / name).resolve().is_relative_to(target.resolve()):
        raise InvalidInput(f"The source's member {member.filename!r} leads outside its folder.", _RESEND)
    return target / name


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path, left: int, limit: int) -> int:
    """Write one member; returns how many bytes are still allowed. Sizes told by the archive are not trusted."""
    if member.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        return left
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        raise InvalidInput(f"The source holds {member.filename!r} twice.", _RESEND)
    with packed.open(member) as source, place.open("xb") as file:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise TooLarge(f"The source holds more than {limit} bytes unpacked.", _smaller())
            file.write(block)
    if member.external_attr >> 16 & stat.S_IXUSR:
        place.chmod(0o755)
    return left
