"""Where the commands print: people's lines, and with `--json` one object or list on stdout."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import typer

from treadle.client import Client
from treadle.model.settings import load
from treadle.sdk.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout; everything for people goes to stderr.")]


def console_for(as_json: bool) -> Console:
    """The console of a command."""
    return Console(sys.stderr if as_json else None)


def print_json(value: Any) -> None:
    """One JSON text, indented, as the server's types are written on the wire."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def client() -> Client:
    """A client of the configured server. Asking questions starts no server."""
    settings = load()
    return Client(settings.url, settings.token)
