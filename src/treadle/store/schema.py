"""Bring a database to the schema this program knows, or refuse it. `PRAGMA user_version` is its schema's version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path

import apsw

from treadle.model.errors import TreadleError
from treadle.store.snapshot import copy_whole

Tell = Callable[[str], None]


def migrate(connection: apsw.Connection, path: Path, tell: Tell) -> None:
    """Run the scripts that the database has not seen, in one transaction: all of them or none.

    A database that holds something is copied first, to `path` with `.schema-N` behind it, N being the old version.
    `tell` gets a line about that.

    Raises:
        TreadleError: the database was written by a newer Treadle, or there is no room for the copy.
    """
    scripts = known_scripts()
    version, newest = connection.pragma("user_version"), len(scripts)
    if version > newest:
        raise TreadleError(
            f"{path} has schema version {version}; this Treadle knows versions up to {newest}.",
            "Install the Treadle that wrote it, or a newer one, or start with another data folder (--data).",
        )
    if version == newest:
        return
    if version:
        copy = copy_of(path, version)
        tell(f"Bringing {path} from schema {version} to {newest}. A copy as it was is kept at {copy}.")
        _copy(connection, copy)
    with connection:  # commits, or rolls back when a script fails
        for script in scripts[version:]:
            connection.execute(script)
        connection.pragma("user_version", newest)


def copy_of(path: Path, version: int) -> Path:
    """Where the copy from before an upgrade lies, which was of this schema."""
    return path.with_name(f"{path.name}.schema-{version}")


def forget_older_copies(path: Path) -> None:
    """Of the copies from before upgrades leave the newest; called when what was upgraded last is known to work."""
    found = path.parent.glob(f"{path.name}.schema-*[0-9]")
    copies = {int(copy.suffix.removeprefix(".schema-")): copy for copy in found}
    for version in sorted(copies)[:-1]:
        copies[version].unlink(missing_ok=True)


def _copy(connection: apsw.Connection, copy: Path) -> None:
    try:
        copy_whole(connection, copy)
    except (OSError, apsw.FullError, apsw.IOError) as error:
        raise TreadleError(
            f"{copy} cannot be written: {error}; nothing was changed.",
            "An upgrade keeps a copy of the database: make room for it.",
        ) from error


def known_scripts() -> list[str]:
    """The scripts in `migrations/`, in their order."""
    folder = files("treadle.store") / "migrations"
    found = {script.name: script for script in folder.iterdir() if script.name.endswith(".sql")}
    return [found[name].read_text() for name in in_order(found)]


def in_order(names: Iterable[str]) -> list[str]:
    """Names of scripts by the number that each begins with: 0001, 0002, …

    Raises:
        TreadleError: two have one number, or a number is left out.
    """
    ordered = sorted(names)
    for number, name in enumerate(ordered, 1):
        if not name.startswith(f"{number:04}_"):
            what = f"Migration {name} is where number {number:04} should be: {', '.join(ordered)}."
            raise TreadleError(what, "Install Treadle again; each number is there once, without a gap.")
    return ordered
