"""Packed sources on this machine: fetched once, checked member by member, unpacked once."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile, mkdtemp
from typing import BinaryIO

from treadle.model.errors import InvalidInput, TooLarge

MAX_FILES = 100_000
MAX_BYTES = 4 * 1024**3
BLOCK = 1024 * 1024

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
            shutil.rmtree(leftover, ignore_errors=True)

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
            shutil.rmtree(draft, ignore_errors=True)


def unpack(archive: BinaryIO, target: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a zip of plain files below `target`; every member is checked before any is written."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            if len(members) > max_files:
                raise TooLarge(f"The source has {len(members)} files; {max_files} are allowed.", _smaller())
            places = [_place(member, target) for member in members]
            left = max_bytes
            for member, place in zip(members, places, strict=True):
                left = _write(packed, member, place, left, max_bytes)
    except zipfile.BadZipFile as error:
        raise InvalidInput(f"The source is not a readable zip archive: {error}.", _RESEND) from error


def _smaller() -> str:
    return "Add what the handler does not need to .treadleignore."


def _place(member: zipfile.ZipInfo, target: Path) -> Path:
    """Where a member goes; refused unless it is a plain file or folder that stays below `target`."""
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidInput(f"The source's member {member.filename!r} is a link or a device.", _RESEND)
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
