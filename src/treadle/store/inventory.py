"""What a database file holds and what it names outside of itself, asked of a file that nobody writes to."""

from __future__ import annotations

from pathlib import Path

import apsw
import msgspec

from treadle.model.secret import Secret
from treadle.store import rows, sql
from treadle.store.schema import known_scripts
from treadle.store.soundness import reading

COUNTED = ("task", "attempt", "delivery", "output", "container", "deployment", "secret")
COUNT_STATUS = "SELECT status, COUNT(*) FROM task GROUP BY status"
OUTPUT_KEYS = "SELECT id, key, size FROM output ORDER BY seq"
SOURCES = "SELECT DISTINCT id, size FROM source ORDER BY id"


class Named(msgspec.Struct, frozen=True):
    """Bytes outside of the database: of an output its key, of a source its sha256."""

    id: str
    key: str
    size: int


class Inventory(msgspec.Struct, frozen=True):
    """`schema`: the version of the file's schema. `counts`: rows by table, and tasks by status."""

    schema: int
    counts: dict[str, int]
    outputs: list[Named]
    sources: list[Named]
    secrets: list[Secret]

    @property
    def current(self) -> bool:
        """Whether its schema is the newest that this program knows."""
        return self.schema == len(known_scripts())


def inventory(path: Path) -> Inventory:
    """Look a database through.

    Raises:
        TreadleError, apsw.Error: it cannot be read.
    """
    with reading(path) as connection:
        return Inventory(
            schema=connection.pragma("user_version"),
            counts=_counts(connection),
            outputs=[Named(*row) for row in connection.execute(OUTPUT_KEYS)],
            sources=[Named(source_id, "", size) for source_id, size in connection.execute(SOURCES)],
            secrets=_secrets(connection),
        )


def _counts(connection: apsw.Connection) -> dict[str, int]:
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    counts = dict.fromkeys(COUNTED, 0)
    for table in there.intersection(COUNTED):  # those of later schemas are not
        ((counts[table],),) = connection.execute(f"SELECT COUNT(*) FROM {table}")  # noqa: S608 - names from above
    for status, count in connection.execute(COUNT_STATUS):
        counts[status] = count
    return counts


def _secrets(connection: apsw.Connection) -> list[Secret]:
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'secret'").fetchall():
        return [rows.to_secret(row) for row in connection.execute(sql.EVERY_SECRET)]
    return []
