"""`treadle secret`: values that containers find in their environment, kept encrypted by the server."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from treadle.cli.output import Json, client, client_with_server, console_for, local_time, print_json
from treadle.cli.usage import Command
from treadle.model.errors import InvalidInput

secrets = typer.Typer(name="secret", help="Secrets: create, list, show, modify, delete.")
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name, and that of the variable.", show_default=False)
]
Value = Annotated[
    str | None,
    typer.Argument(
        metavar="VALUE", help="Its value; - reads it from stdin. Without it you are asked.", show_default=False
    ),
]


@secrets.command(cls=Command)
def create(name: Name, value: Value = None, as_json: Json = False) -> None:
    """Keep a new secret. Functions declared with secrets=["NAME"] find it in their environment."""
    console = console_for(as_json)
    given = _value(name, value)
    made = client_with_server(console).create_secret(name, given)
    if as_json:
        print_json(made)
    console.say(f"Secret {made.name} created.")


@secrets.command("list", cls=Command)
def list_(as_json: Json = False) -> None:
    """List secrets by name; values are not shown."""
    found = client().secrets()
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    rows = [(one.name, local_time(one.created_at), local_time(one.updated_at)) for one in found]
    console.table(("NAME", "CREATED", "UPDATED"), rows)
    console.say(f"{len(found)} {'item' if len(found) == 1 else 'items'}")


@secrets.command(cls=Command)
def show(name: Name, as_json: Json = False) -> None:
    """Print the value of a secret."""
    found = client().secret(name)
    if as_json:
        print_json(found)
    else:
        print(found.value)


@secrets.command(cls=Command)
def modify(name: Name, value: Value = None, as_json: Json = False) -> None:
    """Give a secret a new value. Containers that are started from now on get it."""
    changed = client().modify_secret(name, _value(name, value))
    if as_json:
        print_json(changed)
    console_for(as_json).say(f"Secret {changed.name} changed; containers that are started from now on get it.")


@secrets.command(cls=Command)
def delete(
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Also if deployments use it; they cannot start then.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Forget a secret. Refused while a deployment uses it."""
    client().delete_secret(name, force=force)
    if as_json:
        print_json({"deleted": name})
    console_for(as_json).say(f"Secret {name} deleted.")


def _value(name: str, given: str | None) -> str:
    """As an argument, from stdin (less one newline at its end), or asked for without an echo."""
    if given is None:
        if not sys.stdin.isatty():
            advice = "Give it as an argument, or pass - and write it to stdin."
            raise InvalidInput(f"No value was given for secret {name}.", advice)
        return str(typer.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True))
    if given != "-":
        return given
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"What stdin gave for secret {name} is not UTF-8 text: {error.reason}.") from None
