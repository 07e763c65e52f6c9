"""`treadle deploy`: a function in a file becomes a URL."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from treadle.cli.output import Json, console_for, print_json
from treadle.sdk.load import FORM, find_queue
from treadle.sdk.prepared import curl


def deploy(
    target: Annotated[str, typer.Argument(metavar="FILE.py:FUNC", help=f"{FORM}.", show_default=False)],
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="Its name; part of the URL.")] = "",
    as_json: Json = False,
) -> None:
    """Deploy a task queue as the next version of its name. Builds its image and syncs the files first."""
    console = console_for(as_json)
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        queue = find_queue(target)
    prepared = queue.deploy_with(console, name)
    deployed = prepared.deployed
    if as_json:
        print_json(deployed)
        return
    console.step(f"Deployed {deployed.deployment_name} v{deployed.version}")
    console.step("Invocation details")
    console.say(curl(deployed, prepared.settings.token))
