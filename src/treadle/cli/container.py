"""`treadle container`: list them, see what they print, stop them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from treadle.cli.logs import Follow, Timestamps, show
from treadle.cli.output import Json, client, console_for, print_json
from treadle.cli.usage import Command
from treadle.model.api import ContainerView

containers = typer.Typer(name="container", help="Containers: list, logs, stop.")
Id = Annotated[str, typer.Argument(metavar="ID", help="A container's id.", show_default=False)]


@containers.command("list", cls=Command)
def list_(
    ended: Annotated[
        int, typer.Option(min=0, max=1000, metavar="N", help="The newest N, those that have ended included.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """List containers, newest first."""
    found = client().containers(ended)
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    headers = ("CONTAINER ID", "STATUS", "DEPLOYMENT", "CREATED", "RUNNING", "REASON")
    console.table(headers, [_row(view) for view in found])
    console.say(f"{len(found)} {'item' if len(found) == 1 else 'items'}")


@containers.command(cls=Command)
def logs(
    container_id: Id, follow: Follow = False, timestamps: Timestamps = False, as_json: Json = False
) -> None:
    """Show everything printed in a container: by its tasks, on_start, imports and Treadle's runner."""
    asked = client()
    show(
        container_id, asked.container_log, asked.follow_container, follow=follow, timestamps=timestamps,
        as_json=as_json,
    )  # fmt: skip


@containers.command(cls=Command)
def stop(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Container ids.", show_default=False)],
    grace: Annotated[
        float, typer.Option(min=0, max=86400, metavar="SECONDS", help="Time for running tasks to finish.")
    ] = 10.0,
    as_json: Json = False,
) -> None:
    """Stop containers. Tasks that still run after the grace are retried in another one."""
    asked, console = client(), console_for(as_json)
    views = []
    for container_id in ids:
        views.append(asked.stop_container(container_id, grace))
        console.say(f"Container {container_id} is stopping.")
    if as_json:
        print_json(views)


def _row(view: ContainerView) -> tuple[str, ...]:
    created = datetime.fromisoformat(view.created_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return view.id, view.status, view.deployment, created, str(len(view.running)), view.reason
