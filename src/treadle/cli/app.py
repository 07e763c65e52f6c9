"""All commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

import treadle
from treadle.cli.backup import backup, restore, verify
from treadle.cli.container import containers
from treadle.cli.deploy import deploy
from treadle.cli.deployment import deployments, why
from treadle.cli.doctor import doctor
from treadle.cli.files import cp, ls, mv, rm
from treadle.cli.image import images
from treadle.cli.secret import secrets
from treadle.cli.session import serve
from treadle.cli.task import tasks
from treadle.cli.token import tokens
from treadle.cli.up import down, up
from treadle.cli.usage import Command
from treadle.cli.volume import volumes
from treadle.cli.webhook import webhooks

app = typer.Typer(
    name="treadle",
    help="Serverless task queues for Python functions on machines you own.",
    add_completion=False,
    rich_markup_mode=None,  # loading rich for the help takes longer than everything else here
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"treadle {treadle.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command(cls=Command)(up)
app.command(cls=Command)(down)
app.command(cls=Command)(deploy)
app.command(cls=Command)(doctor)
app.command(cls=Command)(serve)
app.command(cls=Command)(why)
app.add_typer(deployments)
app.add_typer(tasks)
app.add_typer(containers)
app.add_typer(images)
app.add_typer(webhooks)
app.add_typer(secrets)
app.add_typer(tokens)
app.add_typer(volumes)
for command in (ls, cp, rm, mv, backup, restore, verify):
    app.command(cls=Command)(command)
