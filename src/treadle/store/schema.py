"""Bring a database to the schema this program knows, or refuse it. `PRAGMA user_version` is its schema's version."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import apsw

from treadle.model.errors import TreadleError


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Run the scripts that the database has not seen, each in a transaction of its own.

    Raises:
        TreadleError: the database was written by a newer Treadle.
    """
    scripts = _scripts()
    version = connection.pragma("user_version")
    newest = max(scripts)
    if version > newest:
        raise TreadleError(
            f"{path} has schema version {version}; this Treadle knows versions up to {newest}.",
            "Install the Treadle that wrote it, or a newer one, or start with another data folder (--data).",
        )
    for number in range(version + 1, newest + 1):
        with connection:  # commits, or rolls back when the script fails
            connection.execute(scripts[number])
            connection.pragma("user_version", number)


def _scripts() -> dict[int, str]:
    """The scripts in `migrations/` by the number their name starts with."""
    folder = files("treadle.store") / "migrations"
    return {int(script.name[:4]): script.read_text() for script in folder.iterdir() if script.name.endswith(".sql")}
