"""`treadle token`: who may do what at the server, and who no longer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from treadle.cli.output import Json, client, console_for, local_time, print_json
from treadle.cli.usage import Command
from treadle.sdk.console import Console

tokens = typer.Typer(name="token", help="Tokens: create, list, toggle, revoke.")
Id = Annotated[str, typer.Argument(metavar="ID", help="As `treadle token list` shows it.", show_default=False)]


@tokens.command(cls=Command)
def create(
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="admin, deploy (may run code), submit or read.", show_default=False)
    ],
    name: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """Make a token and print it, this once; the server keeps only its hash."""
    made = client().create_token(role, name)
    if as_json:
        print_json(made)
        return
    Console(sys.stderr).say(f"Token {made.id} created with role {made.role}. It is not shown again:")
    print(made.token)


@tokens.command("list", cls=Command)
def list_(as_json: Json = False) -> None:
    """List tokens, oldest first; what opens doors is not shown."""
    found = client().tokens()
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    rows = [(one.id, one.role, "yes" if one.active else "no", local_time(one.created_at), one.name) for one in found]
    console.table(("TOKEN ID", "ROLE", "ACTIVE", "CREATED", "NAME"), rows)
    console.say(f"{len(found)} {'item' if len(found) == 1 else 'items'}")


@tokens.command(cls=Command)
def toggle(token_id: Id, as_json: Json = False) -> None:
    """Switch a token off at once, or on again."""
    after = client().toggle_token(token_id)
    if as_json:
        print_json(after)
    console_for(as_json).say(f"Token {after.id} is {'on' if after.active else 'off'}.")


@tokens.command(cls=Command)
def revoke(token_id: Id, as_json: Json = False) -> None:
    """Revoke a token at once and for good; what it began is cut off."""
    client().revoke_token(token_id)
    if as_json:
        print_json({"revoked": token_id})
    console_for(as_json).say(f"Token {token_id} revoked.")


tokens.command("delete", cls=Command, help="The same as revoke, by the name it has in Beam.")(revoke)
