"""The engine put together: opened over a data folder, its parts around one store and one writer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from treadle.blob.base import Blob
from treadle.blob.disk import DiskBlob
from treadle.engine.catalog import Catalog
from treadle.engine.effects import Outbox
from treadle.engine.fleet import Fleet
from treadle.engine.hints import Hints
from treadle.engine.logs import Logs
from treadle.engine.outputs import Outputs
from treadle.engine.queue import Queue
from treadle.engine.retention import Retention
from treadle.engine.roster import Roster
from treadle.engine.scaler import Scaler
from treadle.engine.secrets import Secrets
from treadle.engine.serving import Serving
from treadle.engine.switch import Switch
from treadle.engine.tokens import Tokens
from treadle.engine.trouble import Troubles
from treadle.engine.vault import Vault
from treadle.engine.volumes import Volumes
from treadle.engine.webhooks import Webhooks
from treadle.engine.writer import Report, Writer
from treadle.model.container import Workspace
from treadle.model.errors import TreadleError
from treadle.model.settings import CREDENTIALS_FILE
from treadle.store.base import Store
from treadle.store.schema import Tell
from treadle.store.sqlite import SqliteStore

DATABASE = "treadle.db"
BLOB_FOLDER = "blob"
KEY_FILE = "secret.key"
RESTORING = "restoring"  # there while a restore takes things away and puts others in their place
BACKUP_COPY = "backup.part"  # the database as a backup has it, until it is written
RESTORE_STAGE = "restore.part"  # what a restore has unpacked


class Chance(msgspec.Struct, frozen=True):
    """Where time and randomness come from; a simulation passes seeded ones."""

    clock: Callable[[], float]  # Unix seconds
    jitter: Callable[[], float]  # [0, 1)
    secret: Callable[[], str]  # a new opaque token
    suffix: Callable[[], str]  # eight hex digits
    random: Callable[[int], bytes]  # so many bytes, for keys and nonces


class Engine(msgspec.Struct, frozen=True):
    """The parts. Verbs run through `writer` only; `roster`, `hints` and `troubles` may be read from elsewhere."""

    store: Store
    hints: Hints
    outbox: Outbox
    writer: Writer
    queue: Queue
    roster: Roster
    fleet: Fleet
    scaler: Scaler
    catalog: Catalog
    secrets: Secrets
    tokens: Tokens
    volumes: Volumes
    switch: Switch
    serving: Serving
    troubles: Troubles
    outputs: Outputs
    logs: Logs
    webhooks: Webhooks
    retention: Retention


def open_store(data: Path, tell: Tell = lambda _line: None) -> Store:
    """The SQLite store of a data folder. Only one process may open it; `tell` gets a line about an upgrade.

    Raises:
        TreadleError: a restore was not finished; the database is damaged, gone, or of a newer Treadle.
    """
    path = data / DATABASE
    if (data / RESTORING).exists():
        raise TreadleError(f"A restore into {data} was not finished.", "Run `treadle restore FILE --force` again.")
    if (data / CREDENTIALS_FILE).exists() and not (path.exists() and path.stat().st_size):
        raise TreadleError(
            f"{path} is {'empty' if path.exists() else 'missing'}, though a server has run here.",
            f"Bring a backup back with `treadle restore FILE`; or, to begin with nothing, remove {CREDENTIALS_FILE}.",
        )
    _sweep(data)
    return SqliteStore.open(path, tell)


def _sweep(data: Path) -> None:
    """Remove what a backup and a restore have left that were killed."""
    for left in data.glob(f"{BACKUP_COPY}*"):
        left.unlink()
    shutil.rmtree(data / RESTORE_STAGE, ignore_errors=True)


def open_blob(data: Path) -> Blob:
    blob = DiskBlob(data / BLOB_FOLDER)
    blob.sweep()
    return blob


def look_at_blob(data: Path) -> Blob:
    """The same, for who changes nothing in the folder."""
    return DiskBlob(data / BLOB_FOLDER)


def assemble(store: Store, data: Path, workspace: Workspace, chance: Chance, report: Report) -> Engine:
    """Build the engine over an open store and bring its hints up to date. The writer is not started yet.

    `data` is the data folder: the key of the secrets and the volumes are there.
    """
    hints, outbox = Hints(), Outbox()
    secrets = Secrets(store, Vault(data / KEY_FILE, chance.random))
    volumes = Volumes(store, data / "volumes")
    catalog = Catalog(store, secrets, volumes, hints.journal)
    queue = Queue(store, hints, outbox, catalog.deployment, chance.jitter)
    roster = Roster(
        store, hints.journal, outbox, deployment=catalog.deployment, image=catalog.image, mounts=volumes.mounts
    )
    troubles = Troubles(hints.journal)
    fleet = Fleet(store=store, hints=hints, outbox=outbox, queue=queue, roster=roster, troubles=troubles)
    scaler = Scaler(
        store=store, hints=hints, outbox=outbox, roster=roster, fleet=fleet, troubles=troubles,
        deployment=catalog.deployment, secrets=secrets.values, make_volumes=volumes.make_all, secret=chance.secret,
        suffix=chance.suffix,
    )  # fmt: skip
    switch = Switch(
        store=store, hints=hints, queue=queue, catalog=catalog, scaler=scaler, troubles=troubles
    )
    serving = Serving(
        store=store, outbox=outbox, catalog=catalog, roster=roster, fleet=fleet, scaler=scaler, troubles=troubles
    )
    queue.recount()
    with store.transaction():
        fleet.restore(chance.clock())
        scaler.watch([*store.deployments(workspace.id), *store.served()])
    hints.journal.forget()
    outbox.take()
    logs = Logs(store, outbox, roster, queue.running)
    # what was printed is kept before it is told that what printed it has ended
    writer = Writer(store, hints.journal, outbox, chance.clock, report, first=logs.keep)
    return Engine(
        store=store, hints=hints, outbox=outbox, writer=writer, queue=queue, roster=roster, fleet=fleet,
        scaler=scaler, catalog=catalog, switch=switch, serving=serving, troubles=troubles, secrets=secrets,
        tokens=Tokens(store), volumes=volumes,
        outputs=Outputs(store), logs=logs,
        webhooks=Webhooks(store), retention=Retention(store),
    )  # fmt: skip
