"""Files between this machine and volumes: what goes where, then one after the other, with a bar for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from treadle.cli.places import Place
from treadle.client import Client
from treadle.model.api_workspace import FileView
from treadle.model.errors import InvalidInput, NotFound, TreadleError
from treadle.sdk.console import Console

Advance = Callable[[int], None]


class Step(msgspec.Struct, frozen=True):
    """One file to copy."""

    local: Path
    remote: Place
    size: int


class Plan(msgspec.Struct):
    """The files to copy, and what is left out, with the reason."""

    steps: list[Step] = []
    left_out: list[str] = []

    @property
    def size(self) -> int:
        return sum(step.size for step in self.steps)


def plan_upload(client: Client, sources: Sequence[str], target: Place) -> Plan:
    """As `cp -r` would: into the target if it is a folder or several things go there, else to its very path."""
    plan = Plan()
    into = len(sources) > 1 or target.as_folder or is_folder(client, target)
    for source in map(Path, sources):
        if not source.exists():
            raise InvalidInput(f"There is no file {str(source)!r} on this machine.", "Name a file or a folder.")
        place = target.below(source.name) if into and source.name else target
        if source.is_dir():
            _add_folder(plan, source, place)
        else:
            _add_file(plan, source, place)
    return plan


def is_folder(client: Client, place: Place) -> bool:
    """Whether there is a folder at a place. A volume itself is one, also before it exists."""
    try:
        return not place.path or client.volume_entry(place.volume, place.path).kind == "folder"
    except NotFound:
        return False


def _add_folder(plan: Plan, source: Path, place: Place) -> None:
    for folder, below, names in os.walk(source):
        below.sort()
        for name in sorted(names):
            path = Path(folder, name)
            _add_file(plan, path, place.below(path.relative_to(source).as_posix()))
        links = [path for name in below if (path := Path(folder, name)).is_symlink()]
        plan.left_out += [f"{path}: a link to a folder" for path in links]


def _add_file(plan: Plan, path: Path, place: Place) -> None:
    if path.is_file():
        plan.steps.append(Step(path, place, path.stat().st_size))
    else:
        plan.left_out.append(f"{path}: not a file")


def plan_download(client: Client, source: Place, target: str) -> Plan:
    """The same the other way round."""
    entries = client.volume_files(source.volume, source.path, deep=True)
    whole = not source.path or client.volume_entry(source.volume, source.path).kind == "folder"
    local = Path(target)
    if local.is_dir() or target.endswith("/"):
        local /= PurePosixPath(source.path).name or source.volume
    plan = Plan()
    for entry in entries:
        if entry.kind == "file":
            inside = entry.path.removeprefix(f"{source.path}/") if source.path else entry.path
            end = _joined(local, inside) if whole else local
            plan.steps.append(Step(end, Place(source.volume, entry.path), entry.size))
        elif entry.kind != "folder":
            plan.left_out.append(f"{Place(source.volume, entry.path)}: {_article(entry)}")
    return plan


def _joined(folder: Path, inside: str) -> Path:
    """A path below a folder: what the server says is not trusted to stay there."""
    parts = inside.split("/")
    if inside.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise TreadleError(f"The server named a file {inside[:200]!r}, which leads elsewhere.", "Nothing was copied.")
    return folder.joinpath(*parts)


def _article(entry: FileView) -> str:
    return "a link" if entry.kind == "link" else "neither a file nor a folder"


def upload(client: Client, plan: Plan, console: Console) -> None:
    """Copy the files of a plan into volumes."""
    with bar(console, "Uploading", plan.size) as advance:
        for step in plan.steps:
            with step.local.open("rb") as file:
                client.put_volume_file(step.remote.volume, step.remote.path, Counted(file, advance))  # type: ignore[arg-type]


def download(client: Client, plan: Plan, console: Console) -> None:
    """Copy the files of a plan to this machine; each is seen at its path when it is whole."""
    with bar(console, "Downloading", plan.size) as advance:
        for step in plan.steps:
            step.local.parent.mkdir(parents=True, exist_ok=True)
            draft = step.local.with_name(f".{os.getpid()}.part")  # a name that fits where its own does
            try:
                with draft.open("wb") as file:
                    for block in client.volume_file(step.remote.volume, step.remote.path):
                        file.write(block)
                        advance(len(block))
                draft.replace(step.local)
            finally:
                draft.unlink(missing_ok=True)


class Counted:
    """A file that tells how much of it was read; what is read again is counted once."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance
        self._furthest = 0

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, at: int) -> int:
        return self._file.seek(at)

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        further = self._file.tell() - self._furthest
        if further > 0:
            self._furthest += further
            self._advance(further)
        return block


@contextmanager
def bar(console: Console, text: str, size: int) -> Iterator[Advance]:
    """Gives what counts bytes up to `size`; on a terminal that is seen."""
    if console.terminal is None:
        yield lambda _count: None
        return
    from rich.console import Console as Rich  # noqa: PLC0415 - costs 50 ms and only a terminal needs it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Rich(file=console.terminal), transient=True) as progress:
        task = progress.add_task(text, total=size)
        yield lambda count: progress.advance(task, count)
