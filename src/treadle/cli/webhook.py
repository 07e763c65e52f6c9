"""`treadle webhook`: what receivers need."""

from __future__ import annotations

import typer

from treadle.cli.output import Json, client, print_json
from treadle.model.api_workspace import KeyView

webhooks = typer.Typer(name="webhook", help="Webhooks: what their receivers need.")


@webhooks.callback()
def _group() -> None:
    """Webhooks: what their receivers need."""


@webhooks.command()
def key(as_json: Json = False) -> None:
    """Print the key that signs this workspace's webhooks."""
    signing_key = client().signing_key()
    if as_json:
        print_json(KeyView(signing_key))
    else:
        print(signing_key)
