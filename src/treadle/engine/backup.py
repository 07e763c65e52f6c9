"""What a backup of a data folder holds, and how it is taken while the server goes on.

In it: the database as of one moment, the outputs and sources that it names, the key of the secrets, config.toml.
Not in it: the files of volumes (containers change them meanwhile, and they may be huge), images (built again when
needed), tokens in the clear (the next start writes another one), what containers and servers leave for a while.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from treadle.blob.base import Blob
from treadle.engine.archive import CHUNK, FORMAT, Archive, Head, Member, of_file
from treadle.engine.assemble import BACKUP_COPY, DATABASE, KEY_FILE
from treadle.engine.outputs import source_key
from treadle.model.settings import CONFIG_FILE
from treadle.store import snapshot, soundness
from treadle.store.inventory import Inventory, inventory

BLOBS = "blob/"  # before the keys of blobs
BESIDE = (KEY_FILE, CONFIG_FILE)  # files that a data folder may have


class Backup(msgspec.Struct, frozen=True):
    """One that is ready to be written. `remove` is called when it has been, or will not be."""

    archive: Archive
    copy: Path

    def remove(self) -> None:
        self.copy.unlink(missing_ok=True)


def take(data: Path, blob: Blob, now: float, version: str) -> Backup:
    """Copy the database as it is now, and find what belongs to it, for the process that has the data folder.

    The blobs must stay until all is written.

    Raises:
        TreadleError: the database is damaged: an archive of it would be no backup.
    """
    copy = data / BACKUP_COPY
    try:
        snapshot.copy_file(data / DATABASE, copy)
        if found := soundness.faults(copy):
            raise soundness.damaged(data / DATABASE, found[0])
        return Backup(_archive(data, blob, copy, now, version), copy)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise


def _archive(data: Path, blob: Blob, copy: Path, now: float, version: str) -> Archive:
    held = inventory(copy)
    members = [of_file(DATABASE, copy)]
    members += [of_file(name, data / name) for name in BESIDE if (data / name).is_file()]
    missing = []
    for key in blob_keys(held):
        size = blob.size(key)
        if size is None:
            missing.append(key)
        else:
            members.append(Member(BLOBS + key, size, partial(blob.read, key, CHUNK)))
    return Archive(Head(FORMAT, version, held.schema, now), members, missing)


def blob_keys(held: Inventory) -> list[str]:
    """Keys of all bytes that a database names."""
    return [output.key for output in held.outputs] + [source_key(source.id) for source in held.sources]
