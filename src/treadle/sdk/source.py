"""Packs the working directory into a zip that is the same, byte for byte, for the same files."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Sequence
from io import BufferedRandom
from pathlib import Path

import msgspec
from pathspec import GitIgnoreSpec

from treadle.model.errors import InvalidInput, TooLarge
from treadle.sdk.console import amount

IGNORE_FILES = (".gitignore", ".beta9ignore", ".beamignore", ".treadleignore")  # the last one has the last word
ALWAYS_IGNORED = frozenset({".git", "__pycache__", ".venv", "node_modules"})
DEFAULT_LIMIT = 1024**3  # bytes before compression
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
BLOCK = 1024 * 1024

Rules = tuple[tuple[Path, GitIgnoreSpec], ...]  # of each folder from the root down that has some


class Packed(msgspec.Struct, frozen=True):
    """A packed source. `id` is the zip's sha256; `skipped` says what was left out unasked, and why."""

    id: str
    files: int
    size: int  # bytes of the zip
    skipped: tuple[str, ...]


def pack(root: Path, target: BufferedRandom, *, limit: int = DEFAULT_LIMIT, exclude: Sequence[Path] = ()) -> Packed:
    """Zip the files under `root` that no rule ignores into `target`, an empty file.

    Rules come from the ignore files in `root` and from `.gitignore` in each folder. Symbolic links are followed
    inside `root` and left out when they lead outside. `exclude` names folders that never belong to the source.

    Raises:
        TooLarge: the files hold more than `limit` bytes.
    """
    walk = _Walk(root.resolve(), exclude)
    walk.enter(walk.root, (), (walk.root,))
    total = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in sorted(walk.files):
            total += _add(archive, name, path, limit - total)
            if total > limit:
                raise TooLarge(
                    f"The files under {walk.root} hold more than {amount(limit)} (the limit was passed at {name}).",
                    "Add large folders to .treadleignore, or work from a smaller directory.",
                )
    size = target.seek(0, os.SEEK_END)
    target.seek(0)
    digest = hashlib.file_digest(target, "sha256").hexdigest()
    target.seek(0)
    return Packed(digest, len(walk.files), size, tuple(sorted(walk.skipped)))


class _Walk:
    """One pass over a directory; what it finds is in `files` (name in the zip, where it is) and `skipped`."""

    def __init__(self, root: Path, exclude: Sequence[Path]) -> None:
        self.root = root
        self.files: list[tuple[str, Path]] = []
        self.skipped: list[str] = []
        self._exclude = {path.resolve() for path in exclude}

    def enter(self, folder: Path, rules: Rules, trail: tuple[Path, ...]) -> None:
        """Collect what is below `folder`. `trail` holds the real folders on the way here, to see circles."""
        rules = (*rules, *_rules_of(folder, IGNORE_FILES if folder == self.root else (".gitignore",)))
        for entry in _entries(folder):
            path = folder / entry.name
            if entry.name in ALWAYS_IGNORED or entry.name.endswith(".pyc"):
                continue
            if entry.is_symlink() and _ignored(path, rules, is_dir=False):
                continue
            real = self._target(path) if entry.is_symlink() else trail[-1] / entry.name
            if real is None or real in self._exclude:
                continue
            if real.is_dir():
                is_environment = (real / "pyvenv.cfg").exists()
                if not is_environment and real not in trail and not _ignored(path, rules, is_dir=True):
                    self.enter(path, rules, (*trail, real))
            elif real.is_file() and not _ignored(path, rules, is_dir=False):
                self._take(path, real)

    def _take(self, path: Path, real: Path) -> None:
        name = path.relative_to(self.root).as_posix()
        if name.isprintable():
            self.files.append((name, real))
        else:
            self.skipped.append(f"{name!r}: its name is not printable text")

    def _target(self, link: Path) -> Path | None:
        """What a symbolic link leads to, if that is under the root."""
        try:
            real = link.resolve(strict=True)
        except (OSError, RuntimeError):
            self.skipped.append(f"{link.relative_to(self.root)}: a symbolic link to nothing")
            return None
        if not real.is_relative_to(self.root):
            reason = "a symbolic link that leads outside the working directory"
            self.skipped.append(f"{link.relative_to(self.root)}: {reason}")
            return None
        return real


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        raise _unreadable(folder) from None


def _rules_of(folder: Path, names: Sequence[str]) -> Iterator[tuple[Path, GitIgnoreSpec]]:
    lines = []
    for name in names:
        file = folder / name
        if file.is_file():
            lines += file.read_text(errors="replace").splitlines()
    # to pathspec `a/**` matches the folder itself, to git only what is in it: `a/**/*` says that to both
    lines = [re.sub(r"/\*\*\s*$", "/**/*", line) for line in lines]
    try:
        if lines:
            yield folder, GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        advice = "Correct or remove that line."
        raise InvalidInput(f"An ignore file in {folder} cannot be understood: {error}.", advice) from None


def _ignored(path: Path, rules: Rules, *, is_dir: bool) -> bool:
    """What the nearest rule says that says anything, as git does."""
    for folder, spec in reversed(rules):
        name = path.relative_to(folder).as_posix() + ("/" if is_dir else "")
        verdict = spec.check_file(name).include
        if verdict is not None:
            return verdict
    return False


def _add(archive: zipfile.ZipFile, name: str, path: Path, left: int) -> int:
    """Copy one file into the archive; returns its size, or what was read when that passes `left`."""
    try:
        file = path.open("rb")
    except PermissionError:
        raise _unreadable(path) from None
    with file:
        status = os.fstat(file.fileno())
        info = zipfile.ZipInfo(name, EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.create_system = 3  # Unix, so that the mode below counts
        info.external_attr = (stat.S_IFREG | (0o755 if status.st_mode & stat.S_IXUSR else 0o644)) << 16
        info.file_size = status.st_size
        size = 0
        with archive.open(info, "w") as member:
            while size <= left and (block := file.read(BLOCK)):
                member.write(block)
                size += len(block)
    return size


def _unreadable(path: Path) -> InvalidInput:
    return InvalidInput(f"{path} may not be read.", "Correct its permissions, or add it to .treadleignore.")
