"""The only code that speaks HTTP to the server: one kept-alive connection per thread, typed answers and errors."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import BinaryIO, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from treadle.model import api
from treadle.model.deployment import ImageSpec
from treadle.model.errors import BY_CODE, InvalidInput, TreadleError, Unreachable

T = TypeVar("T")
Body = bytes | BinaryIO
IDLE_SECONDS = 4.0  # servers close a connection that was idle for 5 s or more; do not race them
BLOCK = 256 * 1024
MAX_WAIT = 60


class Client:
    """Talks to one server with one token. May be shared by threads and survives a fork."""

    def __init__(self, url: str, token: str = "", timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"{url!r} is not the URL of a server.", "Give it as http://HOST:PORT (TREADLE_URL).")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._address = (parts.hostname, parts.port)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._kept = threading.local()

    # tasks

    def enqueue(self, queue: str, payload: bytes) -> str:
        """Submit a task to `NAME`, `NAME/latest`, `NAME/v2`, `id/ID` or `public/ID`; returns its id."""
        headers = {"Content-Type": "application/json"}
        data = self._call("POST", f"/taskqueue/{quote(queue)}", payload, headers=headers, repeatable=False)
        return _decode(data, api.Accepted).task_id

    def enqueue_many(self, queue: str, payloads: bytes) -> list[str]:
        """Submit a JSON array of payloads in one request, all of them or none; returns the ids in order."""
        headers = {"Content-Type": "application/json"}
        data = self._call("POST", f"/taskqueue/{quote(queue)}/batch", payloads, headers=headers, repeatable=False)
        return _decode(data, api.AcceptedMany).task_ids

    def task(self, task_id: str, wait: float = 0) -> api.TaskView:
        """A task as it is now, or after at most `wait` seconds (60 at most) as soon as it is final."""
        wait = max(0, min(wait, MAX_WAIT))
        query = f"?wait={wait:g}" if wait else ""
        path = f"/v2/task/{quote(task_id, safe='')}/{query}"
        return _decode(self._call("GET", path, timeout=self._timeout + wait), api.TaskView)

    def result(self, task_id: str, wait: float = 0) -> api.ResultView:
        """A task's status and result, after at most `wait` seconds (60 at most) as soon as it is final."""
        wait = max(0, min(wait, MAX_WAIT))
        path = f"/v2/task/{quote(task_id, safe='')}/result?wait={wait:g}"
        return _decode(self._call("GET", path, timeout=self._timeout + wait), api.ResultView)

    def tasks(
        self,
        limit: int = 10,
        cursor: str = "",
        *,
        statuses: Sequence[str] = (),
        task_ids: Sequence[str] = (),
        stub_ids: Sequence[str] = (),
        stub_names: Sequence[str] = (),
    ) -> api.TaskPage:
        """One page of tasks, newest first."""
        query = {"limit": str(limit), "cursor": cursor, "status": ",".join(statuses), "task_ids": ",".join(task_ids)}
        query |= {"stub_ids": ",".join(stub_ids), "stub_names": ",".join(stub_names)}
        given = urlencode({key: value for key, value in query.items() if value})
        return _decode(self._call("GET", f"/v2/task/?{given}"), api.TaskPage)

    def cancel(self, task_ids: Sequence[str]) -> list[str]:
        """Cancel tasks; returns the ids of those that this request cancelled."""
        body = msgspec.json.encode(api.CancelRequest(list(task_ids)))
        return _decode(self._call("DELETE", "/v2/task/cancel/", body), api.Cancelled).cancelled

    # deployments

    def build_image(self, spec: ImageSpec) -> Iterator[api.BuildEvent]:
        """Build an image; yields each line as it comes. The last event has `image_id` or `error`."""
        body = msgspec.json.encode(api.BuildRequest(spec))
        connection, response = self._open("POST", "/v2/images", body, timeout=3600.0)
        with contextlib.closing(response), self._telling("the build"):
            for line in response:
                if line.strip():
                    yield _decode(line, api.BuildEvent)
        self._keep(connection, response)

    def has_source(self, source_id: str) -> bool:
        """Whether the server holds the packed source with this sha256."""
        return self._status("HEAD", f"/v2/sources/{source_id}") == 200

    def put_source(self, source_id: str, file: BinaryIO) -> None:
        """Upload packed source from a file, streamed."""
        self._call("PUT", f"/v2/sources/{source_id}", file, headers={"Content-Type": "application/zip"})

    def get_source(self, source_id: str, file: BinaryIO) -> None:
        """Download packed source into a file, streamed."""
        connection, response = self._open("GET", f"/v2/sources/{source_id}")
        with self._telling("the download"):
            while block := response.read(BLOCK):
                file.write(block)
        self._keep(connection, response)

    def deploy(self, request: api.DeployRequest) -> api.Deployed:
        """Make a new version of a name, or find or make the draft when the name is empty."""
        data = self._call("POST", "/v2/deployments", msgspec.json.encode(request), repeatable=not request.name)
        return _decode(data, api.Deployed)

    # outputs, workspace, server

    def save_output(self, task_id: str, attempt: int, name: str, file: BinaryIO) -> api.OutputSaved:
        """Upload a file as an output of a running attempt, streamed."""
        query = urlencode({"task_id": task_id, "attempt": attempt, "name": name})
        headers = {"Content-Type": "application/octet-stream"}
        return _decode(self._call("PUT", f"/v2/outputs?{query}", file, headers=headers), api.OutputSaved)

    def output_url(self, output_id: str, expires: int = 3600) -> str:
        """A signed URL of an output that works for `expires` seconds."""
        path = f"/v2/outputs/{quote(output_id, safe='')}/url?expires={expires}"
        return _decode(self._call("GET", path), api.UrlView).url

    def workspace(self) -> api.WorkspaceView:
        """The workspace the token belongs to."""
        return _decode(self._call("GET", "/v2/workspace"), api.WorkspaceView)

    def signing_key(self) -> str:
        """The key that signs the workspace's webhooks."""
        return _decode(self._call("GET", "/v2/workspace/signing-key"), api.KeyView).signing_key

    def health(self) -> api.Health:
        """Whether the server is there, and which version it is; needs no token."""
        return _decode(self._call("GET", "/health"), api.Health)

    # the wire

    def _call(
        self,
        method: str,
        path: str,
        body: Body = b"",
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        repeatable: bool = True,
    ) -> bytes:
        connection, response = self._open(method, path, body, headers=headers, timeout=timeout, repeatable=repeatable)
        with self._telling("the answer"):
            data = response.read()
        self._keep(connection, response)
        return data

    def _status(self, method: str, path: str) -> int:
        """200 or 404; any other status is an error."""
        connection, response = self._exchange(method, path, b"", {}, self._timeout, repeatable=True)
        response.read()
        self._keep(connection, response)
        if response.status not in (200, 404):
            raise _error(response.status, b"")
        return response.status

    def _open(
        self,
        method: str,
        path: str,
        body: Body = b"",
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        repeatable: bool = True,
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Send a request and return its answer, unread; an answer that is an error is raised."""
        connection, response = self._exchange(
            method, path, body, headers or {}, self._timeout if timeout is None else timeout, repeatable=repeatable
        )
        if response.status >= 400:
            with self._telling("the answer"):
                data = response.read()
            self._keep(connection, response)
            raise _error(response.status, data)
        return connection, response

    def _exchange(
        self, method: str, path: str, body: Body, headers: dict[str, str], timeout: float, *, repeatable: bool
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Send on the kept connection if there is one, and once more on a new one if that had been closed meanwhile.

        A request that must not be done twice is sent again only if it did not go out whole.
        """
        headers = self._headers | headers
        if not isinstance(body, bytes):
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        while True:
            connection, reused = self._connection(timeout)
            whole = False
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # there may be an early answer
                    connection.request(method, self._prefix + path, body or None, headers)
                    whole = True
                return connection, connection.getresponse()
            except (HTTPException, OSError) as error:
                connection.close()
                if not reused or isinstance(error, TimeoutError) or (whole and not repeatable):
                    raise self._unreachable(error, timeout, accepted=whole and not repeatable) from None
            except BaseException:
                connection.close()
                raise
            if not isinstance(body, bytes):
                body.seek(0)

    def _connection(self, timeout: float) -> tuple[HTTPConnection, bool]:
        """This thread's kept connection if it is still good, else a new one; and whether it was used before."""
        kept: tuple[int, float, HTTPConnection] | None = getattr(self._kept, "one", None)
        self._kept.one = None
        if kept is not None:
            pid, since, connection = kept
            if pid == os.getpid() and time.monotonic() - since < IDLE_SECONDS and not _closed(connection):
                connection.sock.settimeout(timeout)
                return connection, True
            connection.close()
        host, port = self._address
        return self._kind(host, port, timeout=timeout, blocksize=BLOCK), False

    def _keep(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        """Keep the connection of an answer that was read to its end for the thread's next request."""
        if response.isclosed() and not response.will_close:
            self._kept.one = (os.getpid(), time.monotonic(), connection)
        else:
            connection.close()

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except (HTTPException, OSError):
            raise Unreachable(f"{self.url} went away in the middle of {what}.", "Try again.") from None

    def _unreachable(self, error: Exception, timeout: float, *, accepted: bool) -> Unreachable:
        if isinstance(error, TimeoutError):
            return Unreachable(f"{self.url} did not answer within {timeout:g} s.", "Is the server busy or stopped?")
        if accepted:
            return Unreachable(
                f"{self.url} closed the connection before it answered.",
                "What was sent may have been accepted: look at `treadle task list` before sending it again.",
            )
        reason = str(error.strerror or error) if isinstance(error, OSError) else str(error)
        advice = "Start a server with `treadle up`, or set TREADLE_URL to one that runs."
        return Unreachable(f"No server answers at {self.url} ({reason.lower()}).", advice)


def _closed(connection: HTTPConnection) -> bool:
    """Whether the other side has closed an idle connection (or says something unasked, which is as bad)."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        advice = "Is TREADLE_URL the URL of a Treadle server of this version?"
        raise TreadleError(f"The server's answer is not what was expected: {error}.", advice) from None


def _error(status: int, data: bytes) -> TreadleError:
    """The error that the server's answer stands for; one without our body is told by its status."""
    try:
        body = msgspec.json.decode(data, type=api.ErrorBody)
    except msgspec.DecodeError:
        by_status = {kind.status: kind for kind in reversed(BY_CODE.values())}
        kind = by_status.get(status, TreadleError)
        return kind(f"The server answered with HTTP status {status}.", "Is TREADLE_URL the URL of a Treadle server?")
    return BY_CODE.get(body.code, TreadleError)(body.error, body.advice)
