"""Holds a whole data folder to what must be true of it, changing nothing: the file, its rows, and what they name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import msgspec

from treadle.blob.base import Blob
from treadle.engine.assemble import DATABASE, KEY_FILE, RESTORING
from treadle.engine.outputs import OUTPUTS, SOURCES, old_enough, source_key
from treadle.engine.vault import Vault
from treadle.model.errors import NotFound, TreadleError
from treadle.store import soundness
from treadle.store.invariants import Breach, breaches
from treadle.store.inventory import Inventory, inventory
from treadle.store.soundness import reading


class Audit(msgspec.Struct, frozen=True):
    """`held` is None if the file is too damaged to be asked. No `breaches`: everything is as it must be."""

    held: Inventory | None
    breaches: list[Breach]


def audit(data: Path, blob: Blob, tell: Callable[[str], None], now: float) -> Audit:
    """Examine a data folder that no server uses; `tell` gets what is examined next. `now`: Unix seconds.

    Raises:
        NotFound: there is no database.
    """
    path = data / DATABASE
    if not any((data / name).exists() for name in (DATABASE, f"{DATABASE}-wal", RESTORING)):
        raise NotFound(f"There is no database in {data}.", "Name a data folder with --data, or TREADLE_DATA.")
    tell("the file of the database")
    found = list(_file(data, path))
    if found:
        return Audit(None, found)
    try:
        held = inventory(path)
        tell("each row")
        found += _rows(path, held)
    except apsw.Error as error:
        return Audit(None, [Breach("file", path.name, str(error))])
    tell("outputs and sources")
    found += [*_blobs(held, blob), *_orphans(held, blob, now)]
    tell("secrets")
    found += _secrets(held, data / KEY_FILE)
    return Audit(held, found)


def _file(data: Path, path: Path) -> Iterator[Breach]:
    if (data / RESTORING).exists():
        yield Breach("file", RESTORING, "a restore was not finished: run it again")
        return
    try:
        soundness.check_at_start(path, seconds=float("inf"))
    except TreadleError as error:
        yield Breach("file", path.name, error.message.removeprefix(f"{path} ").rstrip("."))
        return
    for what in soundness.faults(path, full=True):
        yield Breach("file", path.name, what)


def _rows(path: Path, held: Inventory) -> Iterator[Breach]:
    if not held.current:
        why = f"schema {held.schema} is not the one that this Treadle has rules for: `treadle up` brings it there"
        yield Breach("schema", path.name, why)
        return
    with reading(path) as connection:
        yield from breaches(connection)


def _blobs(held: Inventory, blob: Blob) -> Iterator[Breach]:
    for output in held.outputs:
        size = blob.size(output.key)
        if size != output.size:
            what = "its bytes are not there" if size is None else f"it has {size} bytes, not {output.size}"
            yield Breach("blobs", f"output {output.id}", what)
    for source in held.sources:
        key = source_key(source.id)
        if blob.size(key) is None:
            yield Breach("blobs", f"source {source.id}", "its bytes are not there")
        elif _digest(blob, key) != source.id:
            yield Breach("blobs", f"source {source.id}", "its bytes are not those that were uploaded")


def _orphans(held: Inventory, blob: Blob, now: float) -> Iterator[Breach]:
    """Left by a server that was killed between the bytes and their row; `treadle up` removes those of outputs."""
    known = {output.key for output in held.outputs} | {source_key(source.id) for source in held.sources}
    for above in (OUTPUTS, SOURCES):
        for key in old_enough(blob, above, now):
            if key not in known:
                yield Breach("blobs", key, "nothing in the database has these bytes")


def _digest(blob: Blob, key: str) -> str:
    digest = hashlib.sha256()
    for block in blob.read(key):
        digest.update(block)
    return digest.hexdigest()


def _secrets(held: Inventory, key_file: Path) -> Iterator[Breach]:
    vault = Vault(key_file, lambda _size: b"")  # opens, and seals nothing
    for secret in held.secrets:
        try:
            vault.open(secret)
        except TreadleError as error:
            yield Breach("secrets", f"secret {secret.name}", error.message.rstrip("."))
