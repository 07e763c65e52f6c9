"""`treadle task`: list, show, follow, wait for and cancel tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from treadle.cli.logs import Follow, Timestamps
from treadle.cli.logs import show as show_log
from treadle.cli.output import Json, client, console_for, local_time, print_json
from treadle.cli.usage import Command
from treadle.client import Client
from treadle.lines import one_line
from treadle.model.api import AttemptView, Cancelled, TaskView
from treadle.model.errors import InvalidInput
from treadle.model.task import TaskStatus
from treadle.sdk.console import Console, amount
from treadle.sdk.handle import TaskHandle

tasks = typer.Typer(name="task", help="Tasks: list, show, logs, wait, cancel.")
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Task ids.", show_default=False)]
PAGE = 100


@tasks.command("list", cls=Command)
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="At most so many, newest first.")] = 20,
    status: Annotated[str, typer.Option(metavar="STATUS,…", help="Only these, e.g. PENDING,RUNNING.")] = "",
    name: Annotated[str, typer.Option(metavar="NAME", help="Only tasks of this deployment.")] = "",
    as_json: Json = False,
) -> None:
    """List tasks, newest first."""
    statuses = [_status(word) for word in status.split(",") if word.strip()]
    found = _collect(client(), limit, statuses, [name] if name else [])
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    headers = ("TASK ID", "STATUS", "ATTEMPTS", "CREATED", "RAN", "DEPLOYMENT")
    console.table(headers, [_row(view) for view in found])
    console.say(f"{len(found)} {'item' if len(found) == 1 else 'items'}")


@tasks.command(cls=Command)
def show(task_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)], as_json: Json = False) -> None:
    """Show a task: its state, its attempts, its result, its outputs."""
    view = client().task(task_id)
    if as_json:
        print_json(view)
    else:
        _show(view, console_for(as_json))


@tasks.command(cls=Command)
def logs(
    task_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    follow: Follow = False,
    timestamps: Timestamps = False,
    as_json: Json = False,
) -> None:
    """Show what a task has printed, in all its attempts."""
    asked = client()
    show_log(
        task_id, asked.task_log, asked.follow_task, follow=follow, timestamps=timestamps, as_json=as_json
    )


@tasks.command(cls=Command)
def wait(
    ids: Ids,
    timeout: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Give up after so long.")] = None,
    as_json: Json = False,
) -> None:
    """Wait until tasks are final. Exit code 1 if one did not end COMPLETE, or not in time."""
    asked, console, views = client(), console_for(as_json), []
    deadline = None if timeout is None else time.monotonic() + timeout
    late = ""
    asked.task(ids[0])  # no server is told at once; only one that stops later is waited for
    for task_id in ids:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            view = TaskHandle(task_id, asked).wait(left)
        except TimeoutError:
            view = asked.task(task_id)
            why = f" ({view.why})" if view.why else ""
            late = late or f"Task {task_id} was still {view.status} after {timeout:g} s{why}."
        views.append(view)
        if not as_json:
            reason = f"  {one_line(view.failure_reason)}" if view.failure_reason else ""
            console.say(f"{task_id}  {view.status}{reason}")
    if as_json:
        print_json(views)
    if late:
        raise InvalidInput(late, "Wait longer with --timeout, or see `treadle task show`.")
    if any(view.status != TaskStatus.COMPLETE for view in views):
        raise typer.Exit(1)


@tasks.command(cls=Command)
def cancel(ids: Ids, as_json: Json = False) -> None:
    """Cancel tasks that are not final yet. Exit code 1 if one of them was not cancelled."""
    done = client().cancel(ids)
    console = console_for(as_json)
    if as_json:
        print_json(Cancelled(done))
    for task_id in ids:
        if task_id in done:
            console.say(f"Task {task_id} cancelled.")
        else:
            console.warn(f"Task {task_id} was not cancelled: it is final already, or there is no such task.")
    if set(ids) - set(done):
        raise typer.Exit(1)


def _status(word: str) -> str:
    try:
        return TaskStatus(word.strip().upper())
    except ValueError:
        raise InvalidInput(f"--status={word!r} is not a status.", f"Allowed: {', '.join(TaskStatus)}.") from None


def _collect(asked: Client, limit: int, statuses: list[str], names: list[str]) -> list[TaskView]:
    found: list[TaskView] = []
    cursor = ""
    while len(found) < limit:
        page = asked.tasks(min(PAGE, limit - len(found)), cursor, statuses=statuses, stub_names=names)
        found += page.data
        cursor = page.next
        if not cursor or not page.data:
            break
    return found


def _row(view: TaskView) -> tuple[str, ...]:
    ran = _ran(*view.attempts)
    return view.id, view.status, str(len(view.attempts)), local_time(view.created_at), ran, _deployment(view)


def _deployment(view: TaskView) -> str:
    ref = view.deployment
    if ref.name:
        return f"{ref.name} v{ref.version}"
    return f"{view.stub.name.removeprefix(f'{view.stub.type}/')} (draft)"


def _show(view: TaskView, console: Console) -> None:
    facts: list[tuple[str, str]] = [
        ("task", view.id),
        ("status", view.status),
        ("why", view.why),
        ("failure", view.failure_reason),
        ("deployment", _deployment(view)),
        ("container", view.container_id),
        ("created", local_time(view.created_at)),
        ("started", local_time(view.started_at)),
        ("ended", local_time(view.ended_at)),
        ("result", bytes(view.result).decode() if view.status == TaskStatus.COMPLETE else ""),
    ]
    for label, value in facts:
        if value:
            console.say(f"{label + ':':<12}{one_line(value)}")
    _show_attempts(view.attempts, console.say)
    for output in view.outputs:
        console.say(f"{'output:':<12}{one_line(output.name)} ({amount(output.size)}) {output.url}")


def _show_attempts(attempts: Sequence[AttemptView], say: Callable[[str], None]) -> None:
    """Each attempt with its traceback, or with the number of the first one that had the same."""
    shown: dict[str, int] = {}
    for attempt in attempts:
        words = [f"{attempt.number}", attempt.status, f"ran {_ran(attempt)}", one_line(attempt.failure_reason)]
        say(f"{'attempt:':<12}{'  '.join(word for word in words if word)}")
        first = shown.setdefault(attempt.traceback, attempt.number)
        same = [f"(traceback as of attempt {first})"] if attempt.traceback else []
        for line in attempt.traceback.splitlines() if first == attempt.number else same:
            say(f"{'':<12}{line}")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _ran(*attempts: AttemptView) -> str:
    """How long they ran together; the time between them does not count."""
    spans = [_time(one.ended_at) - _time(one.started_at) if one.ended_at else _since(one) for one in attempts]
    return f"{max(0.0, sum(span.total_seconds() for span in spans)):.1f} s" if spans else ""


def _since(running: AttemptView) -> timedelta:
    return datetime.now(UTC) - _time(running.started_at)
