"""`treadle up` and `treadle down`: a server and one agent in one process, on this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from treadle.model.errors import NotFound
from treadle.model.settings import DEFAULT_HOST, DEFAULT_PORT, GRACE_FILE, Settings, load
from treadle.sdk.console import Console
from treadle.sdk.local import read_server_file, start_server, stop_command

Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of all state. [default: $TREADLE_DATA or ~/.treadle]")
]


def up(
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help=f"Address to listen on. [default: {DEFAULT_HOST}]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help=f"Port to listen on. [default: {DEFAULT_PORT}]")
    ] = None,
    data: Data = None,
    grace: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time for running tasks at the end. [default: 30]")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
) -> None:
    """Start a server here, in the foreground until Ctrl-C."""
    settings = load(data=data, host=host, port=port, grace=grace)
    if detach:
        _detach(settings)
        return
    given = {"data": str(settings.data), "host": host, "port": port, "grace": grace}
    command = [sys.executable, "-P", "-m", "treadle.cli.serve", json.dumps(given)]
    os.execv(sys.executable, command)  # noqa: S606 - becomes the server, without this program's libraries: 9 MB


def down(
    data: Data = None,
    grace: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time for running tasks. [default: the server's grace, 30 unless set]"),
    ] = None,
) -> None:
    """Stop the server of a data folder. Running tasks may finish within the grace time; the rest is retried later."""
    from treadle.cli.alive import has_ended, process_of  # noqa: PLC0415 - loading psutil takes 30 ms

    settings = load(data=data, grace=grace)
    found = read_server_file(settings.data)
    process = process_of(found) if found else None
    if process is None:
        raise NotFound(f"No server is running for {settings.data}.", "Name its folder with --data, or TREADLE_DATA.")
    if grace is not None:
        (settings.data / GRACE_FILE).write_text(f"{grace:g}")
    process.terminate()
    console = Console()
    told = False
    while not has_ended(process, 1.0):
        if not told:
            console.say("Waiting for running tasks to finish…")
            told = True
    console.say(f"Stopped the server (pid {process.pid}).")


def _detach(settings: Settings) -> None:
    from treadle.cli.alive import process_of  # noqa: PLC0415 - loading psutil takes 30 ms

    found = read_server_file(settings.data)
    console = Console()
    if found and process_of(found):
        console.say(f"A server runs at {found.url} already (pid {found.pid}).")
        return
    started = start_server(settings)
    console.say(f"Treadle runs at {started.url} (pid {started.pid}, data: {settings.data}).")
    console.say(f"Stop it with `{stop_command(settings)}`.")
