"""Task routes: one, many, cancel; under /v2 and, for Beam's clients, under /api/v1/task/{workspace}."""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import msgspec
from litestar import Controller, Response, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from treadle.engine.face import Reader
from treadle.engine.queue import CancelTasks
from treadle.model.api import Cancelled, CancelRequest, LogPage, TaskPage, TaskView, WhyView
from treadle.model.container import Role
from treadle.model.errors import InvalidInput, NotFound
from treadle.model.task import FINAL, Task, TaskFilter, TaskStatus
from treadle.server.bridge import Bridge
from treadle.server.house import House
from treadle.server.logs import EVENTS, Limit, Source, answer
from treadle.server.lookup import UUID
from treadle.server.requests import MAX_LIMIT, AnyRequest, decode, small_body
from treadle.server.views import Views

MAX_WAIT = 60.0
MAX_PAGE = 8 * 1024 * 1024  # bytes of records; the one that passes it is the last of its page
NAME_THEM = 'Send {"task_ids": ["…"]} or ?task_ids=a,b.'

Wait = Annotated[
    float, QueryParameter(name="wait", ge=0, le=MAX_WAIT, description="Seconds to wait for a final state.")
]


class Tasks(Controller):
    """Everything about tasks but the enqueue."""

    tags = ("tasks",)

    @get(["/v2/task/{task_id:str}", "/api/v1/task/{workspace:str}/{task_id:str}"])
    async def one(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        task_id: FromPath[str],
        workspace: FromPath[str] = "",
        wait: Wait = 0.0,
    ) -> TaskView:
        """One task with attempts, outputs and result; with `wait` it answers as soon as the task is final."""
        caller = house.caller(request, Role.READ, container=True, workspace=workspace)
        task = find(house.reader, caller.workspace_id, task_id)
        if wait and task.status not in FINAL:
            await until_final(house.bridge, house.reader, task_id, wait)
            task = find(house.reader, caller.workspace_id, task_id)
        return house.views.task(task, time.time())

    @get("/v2/task/{task_id:str}/why")
    async def why(self, request: AnyRequest, house: NamedDependency[House], task_id: FromPath[str]) -> WhyView:
        """What a task waits for, in one line; or what has become of it."""
        caller = house.caller(request, Role.READ, container=True)
        return house.views.why(find(house.reader, caller.workspace_id, task_id), time.time())

    @get("/v2/task/{task_id:str}/logs", gives=EVENTS, page=LogPage)
    async def log(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        task_id: FromPath[str],
        cursor: FromQuery[str] = "",
        limit: Limit = 1000,
    ) -> Response[LogPage] | Stream:
        """What its attempts have printed; as server-sent events for `Accept: text/event-stream`."""
        caller = house.caller(request, Role.READ)
        task = find(house.reader, caller.workspace_id, task_id)

        def over() -> bool:
            now = house.reader.task(task.id)
            return now is None or now.status in FINAL

        source = Source(task.id, partial(house.reader.task_log, task.id), over)
        return answer(request, source, house.bridge, cursor, limit)

    @get(["/v2/task", "/api/v1/task/{workspace:str}"])
    async def many(  # noqa: PLR0917 - the framework passes query parameters by name
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        workspace: FromPath[str] = "",
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = 10,
        cursor: FromQuery[str] = "",
        status: FromQuery[str] = "",
        task_ids: FromQuery[str] = "",
        stub_ids: FromQuery[str] = "",
        stub_names: FromQuery[str] = "",
        container_ids: FromQuery[str] = "",
        created_at_start: FromQuery[str] = "",
        created_at_end: FromQuery[str] = "",
    ) -> TaskPage:
        """Tasks, newest first. Lists are comma-separated; `stub_names` are names of deployments.

        A page may have fewer than `limit` and go on at `next`: it ends where its results have come to 8 MiB.
        """
        caller = house.caller(request, Role.READ, workspace=workspace)
        which = TaskFilter(
            workspace_id=caller.workspace_id,
            statuses=tuple(_status(word) for word in _list(status)),
            task_ids=_list(task_ids),
            deployment_ids=_list(stub_ids),
            names=_list(stub_names),
            container_ids=_list(container_ids),
            created_from=_time("created_at_start", created_at_start),
            created_to=_time("created_at_end", created_at_end),
            before_seq=_seq(cursor),
            limit=limit + 1,
        )
        found = house.reader.tasks(which)
        views = _fitting(found[:limit], house.views)
        return TaskPage(views, _cursor(found[len(views) - 1]) if len(found) > len(views) else "")

    @delete(["/v2/task/cancel", "/api/v1/task/{workspace:str}"], status_code=200, takes=CancelRequest)
    async def cancel(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        workspace: FromPath[str] = "",
        task_ids: FromQuery[str] = "",
    ) -> Cancelled:
        """Cancel tasks named in the body `{"task_ids": […]}` or in `?task_ids=a,b`."""
        caller = house.caller(request, Role.SUBMIT, workspace=workspace)
        ids = [*_list(task_ids), *_ids_in(await small_body(request, house.settings.max_body))]
        if not ids:
            raise InvalidInput("No task is named.", NAME_THEM)
        if len(ids) > MAX_LIMIT:
            raise InvalidInput(f"{len(ids)} tasks are over the limit of {MAX_LIMIT} in one request.", "Send fewer.")
        queue = house.bridge.engine.queue
        return Cancelled(await house.bridge.ask(queue.cancel, CancelTasks(caller.workspace_id, ids)))


def find(reader: Reader, workspace_id: int, task_id: str) -> Task:
    """Raises NotFound, also for a task of another workspace or an id of another form."""
    task = reader.task(task_id) if UUID.fullmatch(task_id) else None
    if task is None or task.workspace_id != workspace_id:
        raise NotFound(f"No task has the id {task_id[:64]!r}.", "`treadle task list` shows the newest.")
    return task


async def until_final(bridge: Bridge, reader: Reader, task_id: str, wait: float) -> None:
    """Return when the task is final, or after `wait` seconds."""
    waiter = bridge.waiter(task_id)
    try:
        task = reader.task(task_id)  # it may have ended between the look and the waiter
        if task is not None and task.status not in FINAL:
            async with asyncio.timeout(wait):
                await waiter
    except TimeoutError:
        pass
    finally:
        bridge.forget_waiter(task_id, waiter)


def _fitting(tasks: Sequence[Task], views: Views) -> list[TaskView]:
    """The records of the first tasks: of all, or of as many as one answer should hold in memory."""
    now, found, size = time.time(), list[TaskView](), 0
    for task in tasks:
        view = views.task(task, now)
        found.append(view)
        size += memoryview(view.result).nbytes + len(view.stub.config)
        size += sum(len(attempt.traceback) for attempt in view.attempts)
        if size > MAX_PAGE:
            break
    return found


def _list(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _status(word: str) -> TaskStatus:
    try:
        return TaskStatus(word.upper())
    except ValueError:
        raise InvalidInput(f"status={word[:32]!r} does not exist.", f"Use {', '.join(TaskStatus)}.") from None


def _time(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{name}={text[:64]!r} is not a time.", "Write 2026-02-03T10:00:00Z.") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _cursor(task: Task) -> str:
    return urlsafe_b64encode(msgspec.json.encode({"before": task.seq})).decode()


def _seq(cursor: str) -> int | None:
    if not cursor:
        return None
    try:
        before = msgspec.json.decode(urlsafe_b64decode(cursor), type=dict[str, int])["before"]
        if not 0 <= before < 2**63:
            raise ValueError(before)
    except (ValueError, KeyError, msgspec.MsgspecError):
        raise InvalidInput(f"cursor={cursor[:64]!r} is not one of ours.", "Use the `next` of a page.") from None
    return before


def _ids_in(body: bytes) -> list[str]:
    if not body.strip():
        return []
    return decode(body, CancelRequest, NAME_THEM).task_ids
