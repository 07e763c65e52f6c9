"""Where the commands print: people's lines, and with `--json` one object or list on stdout."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from treadle.client import Client
from treadle.model.settings import load
from treadle.sdk.console import Console

UNESCAPED = re.compile("[\x7f-\x9f]")  # controls that JSON lets stand, and terminals obey
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout; everything for people goes to stderr.")]


def console_for(as_json: bool) -> Console:
    """The console of a command."""
    return Console(sys.stderr if as_json else None)


def print_json(value: Any) -> None:
    """One JSON text, indented, as the server's types are written on the wire."""
    print(json_text(msgspec.json.format(msgspec.json.encode(value), indent=2)))


def json_text(data: bytes) -> str:
    """JSON without what a terminal would obey."""
    return UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode())


def client() -> Client:
    """A client of the configured server. Asking questions starts no server."""
    settings = load()
    return Client(settings.url, settings.token)


def client_with_server(console: Console) -> Client:
    """The same, for commands that bring something: where none is configured and none answers, one is started."""
    from treadle.sdk.local import ensure_server  # noqa: PLC0415 - most commands only ask

    settings = ensure_server(load(), console)
    return Client(settings.url, settings.token)


def local_time(text: str | None) -> str:
    """A time of the server in local time, to the second; "" for none."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") if text else ""
