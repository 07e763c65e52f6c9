"""`treadle volume`: folders that containers share and that outlive them."""

from __future__ import annotations

from typing import Annotated

import typer

from treadle.cli.output import Json, client, client_with_server, console_for, local_time, print_json
from treadle.cli.usage import Command
from treadle.sdk.console import amount

volumes = typer.Typer(name="volume", help="Volumes: list, create, delete.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)]


@volumes.command("list", cls=Command)
def list_(as_json: Json = False) -> None:
    """List volumes, with what they hold."""
    found = client().volumes()
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    rows = [(one.name, str(one.files), amount(one.size), local_time(one.created_at)) for one in found]
    console.table(("NAME", "FILES", "SIZE", "CREATED"), rows)
    console.say(f"{len(found)} {'item' if len(found) == 1 else 'items'}")


@volumes.command(cls=Command)
def create(name: Name, as_json: Json = False) -> None:
    """Make a volume. One that a deployment names, or that a file is copied to, is made by itself."""
    console = console_for(as_json)
    made = client_with_server(console).make_volume(name)
    if as_json:
        print_json(made)
    console.say(f"Volume {name} created." if made.created else f"Volume {name} exists already.")


@volumes.command(cls=Command)
def delete(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also if deployments or containers use it.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a volume and all files in it. Refused while it is used."""
    client().delete_volume(name, force=force)
    if as_json:
        print_json({"deleted": name})
    console_for(as_json).say(f"Volume {name} deleted.")
