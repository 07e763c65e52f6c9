"""The data folder: locked by one server, with the credentials that the CLI and the SDK read."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from pathlib import Path

import psutil

from treadle.engine.catalog import DEFAULT_WORKSPACE, open_workspace
from treadle.engine.face import Store
from treadle.engine.signing import new_signing_key
from treadle.engine.tokens import add_token, token_hash
from treadle.model.container import Role, Token, Workspace
from treadle.model.errors import Conflict
from treadle.model.ids import uuid7
from treadle.model.settings import CREDENTIALS_FILE, GRACE_FILE, Settings

SERVER_FILE = "server.json"
LOCK_FILE = "lock"


def new_token() -> str:
    """An opaque token of 86 characters (64 random bytes)."""
    return secrets.token_urlsafe(64)


class Lock:
    """Held as long as the server runs; the kernel lets go of it when the process dies."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._data = data
        self._announced = False
        self._file = (data / LOCK_FILE).open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise Conflict(
                f"Another server uses {data}.", "Stop it with `treadle down`, or choose another --data folder."
            ) from None

    def announce(self, url: str) -> None:
        """Say where and who we are, for `treadle down`."""
        self._announced = True
        started = psutil.Process().create_time()
        _write(self._data / SERVER_FILE, json.dumps({"pid": os.getpid(), "url": url, "started": started}), 0o644)

    def grace(self) -> float | None:
        """The time that whoever stops us gives running tasks; None when that was not said. It is told once."""
        path = self._data / GRACE_FILE
        try:
            return max(float(path.read_text()), 0.0)
        except (OSError, ValueError):
            return None
        finally:
            path.unlink(missing_ok=True)

    def release(self) -> None:
        if self._announced:
            (self._data / SERVER_FILE).unlink(missing_ok=True)
        self._file.close()


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file whole; whoever reads it sees the old or the new one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def open_up(store: Store, settings: Settings, url: str) -> Workspace:
    """The workspace, made with an admin token at the first start; the credentials file always names our URL."""
    workspace = open_workspace(store, _new_workspace())
    path = settings.data / CREDENTIALS_FILE
    token = settings.token
    known = store.token(token_hash(token)) if token else None
    if known is None or not known.active or known.role is not Role.ADMIN:  # whoever owns the folder gets in
        token = new_token()
        now, token_id = time.time(), uuid7(time.time(), os.urandom(10))
        add_token(
            store, Token(token_id, workspace.id, token_hash(token), Role.ADMIN, True, now, name=CREDENTIALS_FILE)
        )
    lines = {"url": url, "workspace": workspace.name, "token": token}
    _write(path, "".join(f'{key} = "{value}"\n' for key, value in lines.items()), 0o600)
    return workspace


def _new_workspace() -> Workspace:
    return Workspace(
        id=0,
        external_id=uuid7(time.time(), os.urandom(10)),
        name=DEFAULT_WORKSPACE,
        signing_key=new_signing_key(os.urandom(32)),
        url_key=secrets.token_hex(32),
        created_at=time.time(),
    )
