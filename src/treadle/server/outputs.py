"""Output routes: saved by the attempt that runs, read by whoever has a signed URL."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import time
from typing import Annotated
from urllib.parse import quote

from litestar import Controller, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from treadle.engine.outputs import SaveOutput, blob_key, check_output_name
from treadle.engine.signing import check_output_url
from treadle.model.api import OutputSaved, UrlView
from treadle.model.container import Role
from treadle.model.errors import Conflict, InvalidInput, NotFound
from treadle.model.ids import uuid7
from treadle.model.task import Output, TaskStatus
from treadle.server.house import House
from treadle.server.lookup import UUID
from treadle.server.requests import AnyRequest, take_in
from treadle.server.tasks import find

MAX_OUTPUT = 16 * 1024 * 1024 * 1024  # bytes
MAX_EXPIRES = 7 * 86400
# However a browser shows an output, it runs nothing, loads nothing and has no origin. (But for a PDF, which Chromium
# does not show then; what a PDF runs, it runs inside of its viewer.)
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
# Shown in the browser; everything else is offered as a download, for a file saved by a task is not our page.
SHOWN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain", "application/pdf"})


class Outputs(Controller):
    tags = ("outputs",)

    @put("/v2/outputs", status_code=201, takes=bytes)
    async def save(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        task_id: FromQuery[str],
        name: FromQuery[str],
        attempt: Annotated[int, QueryParameter(ge=1)],
    ) -> OutputSaved:
        """Save a file; only the container that runs this attempt may, and only while it runs."""
        container = house.doors.container(request.headers.get("authorization", ""))
        check_output_name(name)
        task = find(house.reader, container.workspace_id, task_id)
        if task.container_id != container.id or task.status is not TaskStatus.RUNNING or task.attempts != attempt:
            raise Conflict(f"Attempt {attempt} of task {task_id} does not run in this container (any more).")
        output_id = uuid7(time.time(), os.urandom(10))
        key = blob_key(task_id, output_id)
        upload = house.blob.start(key)
        try:
            await take_in(request, upload, MAX_OUTPUT)
            await asyncio.to_thread(upload.commit)
        finally:
            upload.abort()
        verb = SaveOutput(output_id, task_id, attempt, name, upload.size, key)
        try:
            output = await house.bridge.ask(house.bridge.engine.outputs.save, verb)
        except Exception:
            await asyncio.to_thread(house.blob.delete, key)
            raise
        return OutputSaved(output.id, output.name, output.size)

    @get("/v2/outputs/{output_id:str}/url")
    async def url(
        self,
        request: AnyRequest,
        house: NamedDependency[House],
        output_id: FromPath[str],
        expires: Annotated[int, QueryParameter(ge=1, le=MAX_EXPIRES)] = 3600,
    ) -> UrlView:
        """A signed URL that is good for `expires` seconds."""
        caller = house.caller(request, Role.READ, container=True)
        output = _find(house, output_id)
        task = house.reader.task(output.task_id) if output else None
        if output is None or task is None or task.workspace_id != caller.workspace_id:
            raise NotFound(f"No output has the id {output_id[:64]!r}.")
        workspace = house.lookup.workspace(task.workspace_id)
        return UrlView(house.views.output_url(output.id, workspace, time.time(), expires))

    @get("/output/id/{output_id:str}", gives="*/*")
    async def read(
        self,
        house: NamedDependency[House],
        output_id: FromPath[str],
        expires: FromQuery[int] = 0,
        signature: FromQuery[str] = "",
    ) -> Stream:
        """The bytes of an output; the URL itself is the key."""
        output = _find(house, output_id)
        task = house.reader.task(output.task_id) if output else None
        if output is None or task is None:
            raise _unknown()
        key = house.lookup.workspace(task.workspace_id).url_key
        check_output_url(key, output.id, expires, signature, time.time())
        if house.blob.size(output.key) is None:
            raise _unknown()
        return Stream(house.blob.read(output.key), media_type=_media(output), headers=_headers(output))


def _find(house: House, output_id: str) -> Output | None:
    return house.reader.output(output_id) if UUID.fullmatch(output_id) else None


def _unknown() -> InvalidInput:
    """Unknown, altered and expired look the same from outside."""
    return InvalidInput("invalid output id", "Get a fresh URL from the task.")


def _media(output: Output) -> str:
    return mimetypes.guess_type(output.name)[0] or "application/octet-stream"


def _headers(output: Output) -> dict[str, str]:
    kind = "inline" if _media(output) in SHOWN else "attachment"
    return {
        "content-length": str(output.size),
        "content-disposition": f"{kind}; filename*=UTF-8''{quote(output.name, safe='')}",
        "cache-control": "private, max-age=0",
        "referrer-policy": "no-referrer",  # the URL is the key
    } | ({} if _media(output) == "application/pdf" else {"content-security-policy": SANDBOX})
