"""`treadle backup`, `restore` and `verify`: a data folder in one file, back from it, and whether it is sound."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.cli.output import Json, console_for, print_json
from treadle.cli.transfer import Advance, bar
from treadle.cli.up import Data
from treadle.client import Client
from treadle.model.errors import InvalidInput, NotFound, Unreachable
from treadle.model.settings import Settings, load
from treadle.sdk.console import Console, amount

if TYPE_CHECKING:
    from treadle.server.offline import Audit, Head, Restored

TOLD = 20  # breaches of one invariant that are shown
NOT_HELD = "Not in it: the files of volumes (`volumes/` in the data folder), and images, which are built again."
File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)]


def backup(file: File, data: Data = None, as_json: Json = False) -> None:
    """Write a data folder into one file, while its server goes on."""
    settings, console = load(data=data), console_for(as_json)
    if not file.name:
        raise InvalidInput(f"{str(file)!r} is not the name of a file.", "Name the file that the backup becomes.")
    _check_target(file)
    draft = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with _blocks(settings, console) as blocks:
            _write(draft, blocks)
        head, missing = _checked(draft, console)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "size": size, "schema": head.schema, "missing": missing})
    console.say(f"Backup of {_time(head)} written to {file} ({amount(size)}), read back and found good.")
    _warn(console, missing)
    console.say(NOT_HELD)
    console.say("It opens secrets: keep it as safe as the data folder.")


def _check_target(file: Path) -> None:
    """A backup may take the place of an older one, and of nothing else."""
    from treadle.server.offline import looks_like_backup  # noqa: PLC0415 - loads the engine

    if file.exists() and not (file.is_file() and looks_like_backup(file)):
        what = f"{str(file)!r} is there already, and is no backup: it was left as it is."
        raise InvalidInput(what, "Name a file that is not there yet, or an older backup to be replaced.")


@contextmanager
def _blocks(settings: Settings, console: Console) -> Iterator[Iterator[bytes]]:
    """The bytes of a backup, from the server, or of a data folder that none uses."""
    client = Client(settings.url, settings.token)
    try:
        client.health()
    except Unreachable:
        if settings.url_configured:
            raise
        with _offline(settings, console) as blocks:
            yield blocks
        return
    with console.busy("Copying the database"):
        sizes: list[int] = []
        stream = client.backup(sizes.append)
        first = next(stream, b"")
    with bar(console, "Backing up", sizes[0]) as advance:
        yield _counted(first, stream, advance)


@contextmanager
def _offline(settings: Settings, console: Console) -> Iterator[Iterator[bytes]]:
    from treadle.server.offline import taken_backup  # noqa: PLC0415 - loads the engine

    _check_folder(settings.data)
    with taken_backup(settings.data) as archive, bar(console, "Backing up", archive.size) as advance:
        yield _counted(b"", archive.blocks(), advance)


def _counted(first: bytes, rest: Iterator[bytes], advance: Advance) -> Iterator[bytes]:
    yield first
    for block in rest:
        advance(len(block))
        yield block


def _write(path: Path, blocks: Iterator[bytes]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        for block in blocks:
            out.write(block)
        out.flush()
        os.fsync(out.fileno())


def _checked(path: Path, console: Console) -> tuple[Head, list[str]]:
    """Read back what was written: a backup that cannot be read is none."""
    from treadle.server.offline import check_backup  # noqa: PLC0415 - loads the engine

    with path.open("rb") as file, bar(console, "Reading it back", path.stat().st_size) as advance:
        head, sums = check_backup(file, advance)
    return head, sums.missing


def restore(
    file: File,
    data: Data = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the database that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Make a data folder what it was when the backup was taken. No server may use the folder."""
    from treadle.server.offline import restore_backup  # noqa: PLC0415 - loads the engine

    settings, console = load(data=data), console_for(as_json)
    if not file.is_file():
        raise NotFound(f"There is no file {str(file)!r}.", "Name a backup of `treadle backup`.")
    with file.open("rb") as stream, bar(console, "Restoring", file.stat().st_size) as advance:
        done = restore_backup(stream, settings.data, advance, force=force)
    if as_json:
        told = {"data": str(settings.data), "schema": done.head.schema}
        print_json(told | {"counts": done.held.counts, "missing": done.missing})
    _tell_restored(console, settings.data, done)


def _tell_restored(console: Console, data: Path, done: Restored) -> None:
    counts = done.held.counts
    unfinished = sum(counts.get(status, 0) for status in ("PENDING", "RETRY", "RUNNING"))
    console.say(f"{data} is as it was at {_time(done.head)}: {_held(counts)}.")
    _warn(console, done.missing)
    if unfinished:
        console.say(f"{unfinished} unfinished tasks run when the server starts, even if they have run since.")
    console.say("Tokens that were revoked since are good again: see `treadle token list` once the server runs.")
    console.say("Files of volumes are not in a backup: what is in the folder stayed.")


def verify(data: Data = None, as_json: Json = False) -> None:
    """Examine a data folder that no server uses, changing nothing. Exit code 1 if anything is wrong."""
    from treadle.server.offline import verify as examine  # noqa: PLC0415 - loads the engine

    settings, console = load(data=data), console_for(as_json)
    _check_folder(settings.data)
    with _examining(console) as tell:
        found = examine(settings.data, tell)
    if as_json:
        print_json({"breaches": found.breaches, "counts": found.held.counts if found.held else {}})
    _tell_audit(console, settings.data, found)
    raise typer.Exit(1 if found.breaches else 0)


@contextmanager
def _examining(console: Console) -> Iterator[Callable[[str], None]]:
    with console.busy("Examining the data folder"):
        yield lambda what: None if console.terminal is None else console.detail(what)


def _tell_audit(console: Console, data: Path, found: Audit) -> None:
    shown: dict[str, int] = {}
    for breach in found.breaches:
        shown[breach.name] = shown.get(breach.name, 0) + 1
        if shown[breach.name] <= TOLD:
            console.say(f"WRONG  {breach.name}: {breach}")
    for name, count in shown.items():
        if count > TOLD:
            console.say(f"       {name}: and {count - TOLD} more")
    if found.held is None:
        console.say("The rows were not examined: bring a backup back with `treadle restore FILE --force`.")
    elif found.breaches:
        console.say(f"{len(found.breaches)} things are wrong in {data}: {_held(found.held.counts)}.")
    else:
        console.say(f"All is well in {data}: {_held(found.held.counts)}.")


def _held(counts: dict[str, int]) -> str:
    words = {"task": "task", "attempt": "attempt", "delivery": "webhook", "output": "output", "secret": "secret"}
    found = {word: counts.get(table, 0) for table, word in words.items()}
    return ", ".join(f"{count:,} {word}{'' if count == 1 else 's'}" for word, count in found.items())


def _warn(console: Console, missing: list[str]) -> None:
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        console.warn(f"Files that the database names were not there: {missing[0]}{more}. See `treadle verify`.")


def _check_folder(data: Path) -> None:
    if not data.is_dir():
        raise NotFound(f"There is no data folder {data}.", "Name one with --data, or TREADLE_DATA.")


def _time(head: Head) -> str:
    return datetime.fromtimestamp(head.created_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
