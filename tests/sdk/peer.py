"""The other side of the client in these tests: a real HTTP server that answers with the shapes of `model.api`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from treadle.model import api, api_workspace
from treadle.model.errors import NotFound, TreadleError, Unauthorized

TOKEN = "t" * 64
TIME = "2026-02-03T10:00:00.120441Z"


def task_view(task_id: str, status: str = "PENDING", result: str = "null", **changes: Any) -> api.TaskView:
    """A task as the server shows it."""
    workspace = api.WorkspaceView(1, "ws", "default", TIME, TIME)
    stub = api.StubView("stub-1", "stub-1", "taskqueue/app:f", "taskqueue", "{}", 0, False, TIME, TIME)
    view = api.TaskView(
        id=task_id, external_id=task_id, status=status, failure_reason="", container_id="", created_at=TIME,
        started_at=None, ended_at=None, updated_at=TIME, deployment=api.DeploymentRef("d", "thumbs", 1), outputs=[],
        stats=api.Stats(0, 1), result=msgspec.Raw(result.encode()), attempts=[], why="", workspace=workspace,
        external_workspace=None, stub=stub, app=api.AppView("a", "a", "app", "", TIME, TIME, None),
    )  # fmt: skip
    return msgspec.structs.replace(view, **changes)


class Peer:
    """Starts on a free port. `requests` holds what came in; the other attributes say how to answer."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.connections: set[tuple[str, int]] = set()
        self.tasks: dict[str, api.TaskView] = {}
        self.sources: dict[str, bytes] = {}
        self.outputs: dict[str, bytes] = {}
        self.deployed: list[api.DeployRequest] = []
        self.images: dict[bytes, str] = {}
        self.stored: list[api.ImageView] = []
        self.build_error = ""
        self.refuse: TreadleError | None = None
        self.hang_up = 0  # read so many requests and close without an answer
        self.close_after_answer = False  # promise to keep the connection, then close it
        self.changed = threading.Condition()
        self.closed = 0  # connections
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.peer = self
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds; it is asked after each request, change of a task and closed connection."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=20)

    def paths(self, method: str) -> list[str]:
        return [path for asked, path, _ in self.requests if asked == method]

    def set_task(self, view: api.TaskView) -> None:
        with self.changed:
            self.tasks[view.id] = view
            self.changed.notify_all()

    def answer(self, method: str, path: str, body: bytes) -> Any:  # noqa: PLR0911, PLR0912 - one line a route
        """The answer to a request: a struct, bytes, a list of events, or None."""
        parts = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        match [method, *parts.path.strip("/").split("/")]:
            case ["POST", "taskqueue", *_]:
                task_id = f"task-{len(self.tasks) + 1}"
                self.set_task(task_view(task_id))
                return api.Accepted(task_id)
            case ["GET", "v2", "task"]:
                return self._page(query)
            case ["GET", "v2", "task", task_id, "result"]:
                view = self._task(task_id, float(query.get("wait", 0)))
                return api.ResultView(view.status, view.result)
            case ["GET", "v2", "task", task_id]:
                return self._task(task_id, float(query.get("wait", 0)))
            case ["DELETE", "v2", "task", "cancel"]:
                ids = msgspec.json.decode(body, type=api.CancelRequest).task_ids
                waiting = {one for one, view in self.tasks.items() if view.status == "PENDING"}
                return api.Cancelled([one for one in ids if one in waiting])
            case ["POST", "v2", "images"]:
                return self._build(body)
            case ["GET", "v2", "images"]:
                return msgspec.json.encode(self.stored)
            case ["POST", "v2", "images", "prune"]:
                return self._prune(msgspec.json.decode(body, type=api.PruneRequest))
            case ["HEAD", "v2", "sources", source_id]:
                if source_id not in self.sources:
                    raise NotFound("unknown source")
                return b""
            case ["PUT", "v2", "sources", source_id]:
                self.sources[source_id] = body
                return b""
            case ["GET", "v2", "sources", source_id]:
                return self.sources[source_id]
            case ["POST", "v2", "deployments"]:
                return self._deploy(msgspec.json.decode(body, type=api.DeployRequest))
            case ["PUT", "v2", "outputs"]:
                self.outputs[query["name"]] = body
                return api.OutputSaved("out-1", query["name"], len(body))
            case ["GET", "v2", "outputs", output_id, "url"]:
                if not self.outputs:
                    raise NotFound("no such output")
                return api.UrlView(f"{self.url}/output/id/{output_id}?expires={query['expires']}")
            case ["GET", "v2", "workspace", "signing-key"]:
                return api_workspace.KeyView("sk_secret")
            case ["GET", "v2", "workspace"]:
                return api.WorkspaceView(1, "ws", "default", TIME, TIME)
        raise NotFound(f"Nothing is at {method} {path}.", "See /openapi.")

    def _task(self, task_id: str, wait: float) -> api.TaskView:
        deadline = time.monotonic() + wait
        with self.changed:
            if task_id not in self.tasks:
                raise NotFound(f"There is no task {task_id}.", "`treadle task list` shows them.")
            while self.tasks[task_id].status in ("PENDING", "RUNNING", "RETRY"):
                if not self.changed.wait(max(0.0, deadline - time.monotonic())):
                    break
            return self.tasks[task_id]

    def _page(self, query: dict[str, str]) -> api.TaskPage:
        found = [view for view in reversed(self.tasks.values()) if view.status in query.get("status", view.status)]
        start, limit = int(query.get("cursor", 0)), int(query["limit"])
        rest = str(start + limit) if len(found) > start + limit else ""
        return api.TaskPage(found[start : start + limit], rest)

    def _prune(self, asked: api.PruneRequest) -> api.Pruned:
        unused = [view for view in self.stored if not view.used_by]
        if not asked.dry_run:
            self.stored = [view for view in self.stored if view.used_by]
        return api.Pruned(unused, sum(view.freed for view in unused), asked.dry_run)

    def _build(self, body: bytes) -> list[api.BuildEvent]:
        if self.build_error:
            return [api.BuildEvent(log="resolving"), api.BuildEvent(error=self.build_error)]
        if body in self.images:
            return [api.BuildEvent(image_id=self.images[body], cached=True)]
        self.images[body] = f"image-{len(self.images) + 1}"
        return [api.BuildEvent(log="installing"), api.BuildEvent(image_id=self.images[body])]

    def _deploy(self, request: api.DeployRequest) -> api.Deployed:
        self.deployed.append(request)
        version = sum(one.name == request.name for one in self.deployed)
        path = f"{request.name}/v{version}" if request.config.authorized else "public/dep-1"
        return api.Deployed(
            deployment_id="dep-1", deployment_name=request.name, stub_id="dep-1", version=version,
            invoke_url=f"{self.url}/taskqueue/{path}", workspace_id="ws", image_id=request.image_id,
            source_id=request.source_id, authorized=request.config.authorized, created=True,
        )  # fmt: skip


class _Server(ThreadingHTTPServer):
    peer: Peer

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.peer.changed:
            self.peer.closed += 1
            self.peer.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may go away at any time
            super().handle_error(request, client_address)


def _handler(peer: Peer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Keep the tests' output clean."""

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with peer.changed:
                peer.requests.append((self.command, self.path, body))
                peer.connections.add(self.client_address)
                peer.changed.notify_all()
            if peer.hang_up:
                peer.hang_up -= 1
                self.close_connection = True
                return
            try:
                self._send(200, self._answer(body))
            except TreadleError as error:
                shown = api.ErrorBody(error.message, error.code, error.advice, error.message)
                self._send(error.status, shown)
            self.close_connection = self.close_connection or peer.close_after_answer

        def _answer(self, body: bytes) -> Any:
            if self.path == "/health":
                return api.Health("ok", "0.1.0", 1)
            if peer.refuse is not None:
                raise peer.refuse
            public = self.path.startswith("/taskqueue/public/")
            if not public and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Unauthorized("The token is not known here.", "Set TREADLE_TOKEN.")
            return peer.answer(self.command, self.path, body)

        def _send(self, status: int, value: Any) -> None:
            if isinstance(value, list):
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for event in value:
                    line = msgspec.json.encode(event) + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            data = value if isinstance(value, bytes) else msgspec.json.encode(value)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815 - their names there

    return Handler



