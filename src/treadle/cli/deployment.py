"""`treadle deployment`: list, stop, start and delete deployments; and `treadle why`, for a task that waits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import typer

from treadle.cli.output import Json, client, console_for, local_time, print_json
from treadle.cli.usage import Command
from treadle.client import Client
from treadle.lines import one_line
from treadle.model.api import DeploymentView
from treadle.model.errors import InvalidInput, NotFound
from treadle.sdk.console import Console

deployments = typer.Typer(name="deployment", help="Deployments: list, stop, start, delete.")
Which = Annotated[
    list[str], typer.Argument(metavar="ID", help="Ids, or NAME/vN as in the URL.", show_default=False)
]
VERSION = re.compile(r"([^/]+)/v(\d{1,9})")


@deployments.command("list", cls=Command)
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="At most so many, newest first.")] = 20,
    name: Annotated[str, typer.Option(metavar="NAME", help="Only versions of this name.")] = "",
    as_json: Json = False,
) -> None:
    """List deployments, newest first, with their state and why one does not run."""
    found = client().deployments(name, limit)
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    headers = ("DEPLOYMENT", "STATE", "CONTAINERS", "RUNNING", "WAITING", "CREATED", "ID")
    console.table(headers, [_row(view) for view in found])
    console.say(f"{len(found)} {'item' if len(found) == 1 else 'items'}")
    for view in found:
        if view.why:
            _tell_why(console, f"{view.name} v{view.version}: {one_line(view.why)}", view.log_tail)


@deployments.command(cls=Command)
def stop(ids: Which, as_json: Json = False) -> None:
    """Take no tasks and run none. Running tasks get 30 seconds; waiting ones wait until it is started again."""
    _each(ids, as_json, Client.stop_deployment, _stopped)


@deployments.command(cls=Command)
def start(ids: Which, as_json: Json = False) -> None:
    """Take and run tasks again; one that is degraded tries to start at once."""
    _each(ids, as_json, Client.start_deployment, lambda view: f"Started {view.name} v{view.version}.")


@deployments.command(cls=Command)
def delete(ids: Which, as_json: Json = False) -> None:
    """Take deployments away for good. What waits in them is cancelled."""
    _each(ids, as_json, Client.delete_deployment, _deleted)


def why(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="A task's id.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Say what a task waits for, or what has become of it."""
    view = client().why(task_id)
    if as_json:
        print_json(view)
        return
    console = console_for(as_json)
    console.say(f"{view.status}: {one_line(view.why)}")
    if view.log_tail:
        console.say(view.log_tail)


def _each(
    ids: list[str], as_json: bool, do: Callable[[Client, str], DeploymentView], told: Callable[[DeploymentView], str]
) -> None:
    asked, console, views = client(), console_for(as_json), []
    for given in ids:
        views.append(do(asked, _id_of(asked, given)))
        if not as_json:
            console.say(told(views[-1]))
    if as_json:
        print_json(views)


def _id_of(asked: Client, given: str) -> str:
    """The id that NAME/vN stands for; anything else is an id."""
    match = VERSION.fullmatch(given)
    if match is None:
        if "/" in given or not given:
            raise InvalidInput(f"{given!r} is not a deployment.", "Name it by its id, or as NAME/vN.")
        return given
    for view in asked.deployments(match[1], 1000):
        if view.version == int(match[2]):
            return view.id
    raise NotFound(f"No deployment is {given!r}.", "`treadle deployment list` shows those there are.")


def _row(view: DeploymentView) -> tuple[str, ...]:
    counts = (str(view.containers), str(view.running), str(view.waiting))
    return f"{view.name} v{view.version}", view.state, *counts, local_time(view.created_at), view.id


def _tell_why(console: Console, text: str, tail: str) -> None:
    console.warn(text)
    for line in tail.splitlines():
        console.say(f"  {line}")


def _stopped(view: DeploymentView) -> str:
    more = f" {_waiting(view.waiting, 'goes', 'go')} on waiting." if view.waiting else ""
    return f"Stopped {view.name} v{view.version}.{more}"


def _deleted(view: DeploymentView) -> str:
    more = f" {_waiting(view.waiting, 'is', 'are')} being cancelled." if view.waiting else ""
    return f"Deleted {view.name} v{view.version}.{more}"


def _waiting(count: int, one: str, many: str) -> str:
    return f"1 waiting task {one}" if count == 1 else f"{count} waiting tasks {many}"
