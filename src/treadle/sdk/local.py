"""Starts a server on this machine in the background when none is configured and none answers."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from treadle.client import Client
from treadle.model.api import Health
from treadle.model.errors import Unavailable, Unreachable
from treadle.model.settings import Settings, data_folder, load
from treadle.sdk.console import Console

START_SECONDS = 30.0  # a busy machine takes long; an idle one is ready in two
PROBE_SECONDS = 2.0
SERVER_FILE = "server.json"
LOG_FILE = "server.log"
GATE_FILE = "starting"  # locked while one process starts a server


class ServerFile(msgspec.Struct, frozen=True):
    """DATA/server.json, written by a server when it is ready and removed when it ends."""

    pid: int
    url: str
    started: float  # when its process was created: a pid alone may have a new owner


def read_server_file(data: Path) -> ServerFile | None:
    """Which server said last that it serves this data folder; it may be dead."""
    try:
        return msgspec.json.decode((data / SERVER_FILE).read_bytes(), type=ServerFile)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def ensure_server(settings: Settings, console: Console) -> Settings:
    """Settings of a server that answers: as given where one is configured, else of one found or started here.

    Raises:
        Unavailable: a server could not be started, or the one that answers is not of this data folder.
    """
    if settings.url_configured:
        return settings
    found = _running(settings.data)
    if found is None and _health(settings.url) is None:
        found = start_server(settings)
        console.step(f"Started a local server at {found.url} (stop it with `{stop_command(settings)}`)")
    token = settings.token or load(data=settings.data).token
    url = found.url if found else settings.url
    if not token:
        raise Unavailable(
            f"A server answers at {url}, but {settings.data} holds no token for it.",
            "Set TREADLE_DATA to its data folder, or TREADLE_TOKEN; or stop that server.",
        )
    return msgspec.structs.replace(settings, url=url, token=token)


def start_server(settings: Settings) -> ServerFile:
    """Start a server in a session of its own and wait until it is ready; of several callers one starts it.

    Raises:
        Unavailable: it ended, or was not ready in time; the message has the last line of its log.
    """
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (settings.data / GATE_FILE).open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        return _running(settings.data) or _start(settings)


def _start(settings: Settings) -> ServerFile:
    command = [sys.executable, "-m", "treadle", "up", "--data", str(settings.data), "--host", settings.host]
    command += ["--port", str(settings.port), "--grace", f"{settings.grace:g}"]
    log = settings.data / LOG_FILE
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as stream:
        process = subprocess.Popen(
            command, cwd=settings.data, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"The server ended when it was started: {_last_line(log)}", f"Its log is {log}.")
        found = _running(settings.data)
        if found and found.pid == process.pid:
            return found
        time.sleep(0.02)  # there is nothing to wait on: the server is no child of a loop here
    process.terminate()
    raise Unavailable(f"The server was not ready after {START_SECONDS:g} s: {_last_line(log)}", f"Its log is {log}.")


def stop_command(settings: Settings) -> str:
    """The command that stops the server of these settings, given in the same environment."""
    usual = data_folder(None, os.environ)
    return "treadle down" if settings.data == usual else f"treadle down --data {shlex.quote(str(settings.data))}"


def _running(data: Path) -> ServerFile | None:
    """The server that says it serves this folder, if it answers."""
    found = read_server_file(data)
    return found if found and _health(found.url) else None


def _health(url: str) -> Health | None:
    try:
        return Client(url, timeout=PROBE_SECONDS).health()
    except Unreachable:
        return None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
