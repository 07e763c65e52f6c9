"""The only code that speaks HTTP to the server: one kept-alive connection per thread, typed answers and errors."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import msgspec

from treadle.connection import Answer, Connection
from treadle.model import api
from treadle.model.deployment import ImageSpec
from treadle.model.errors import BY_CODE, InvalidInput, TreadleError, Unreachable

T = TypeVar("T")
Body = bytes | BinaryIO
IDLE_SECONDS = 4.0  # servers close a connection that was idle for 5 s or more; do not race them
MAX_WAIT = 60
BUILD_SECONDS = 3600.0  # without a line from a build
JSON = "application/json"
ZIP = "application/zip"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"
QUIET_SECONDS = 60.0  # without a sign of life from a log that is followed
AWAY_SECONDS = 30.0  # a server may be away before a log that is followed is given up
RETRY_SECONDS = 0.5
DEFAULT_PORT = {"http": 80, "https": 443}
VISIBLE = re.compile(r"[!-~]*")  # ASCII without spaces: what a request's head may hold


class Client:
    """Talks to one server with one token. May be shared by threads and survives a fork."""

    def __init__(self, url: str, token: str = "", timeout: float = 30.0) -> None:
        parts, port = _parts(url)
        if not VISIBLE.fullmatch(token):
            raise InvalidInput("The token holds a space, or a character that no token has.", "Check TREADLE_TOKEN.")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._tls = parts.scheme == "https"
        self._address = (parts.hostname or "", port)
        self._headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\nAccept-Encoding: identity\r\n"
        if token:
            self._headers += f"Authorization: Bearer {token}\r\n"
        self._kept = threading.local()

    # tasks

    def enqueue(self, queue: str, payload: bytes) -> str:
        """Submit a task to `NAME`, `NAME/latest`, `NAME/v2`, `id/ID` or `public/ID`; returns its id."""
        data = self._call("POST", f"/taskqueue/{quote(queue)}", payload, kind=JSON, repeatable=False)
        return _decode(data, api.Accepted).task_id

    def enqueue_many(self, queue: str, payloads: bytes) -> list[str]:
        """Submit a JSON array of payloads in one request, all of them or none; returns the ids in order."""
        data = self._call("POST", f"/taskqueue/{quote(queue)}/batch", payloads, kind=JSON, repeatable=False)
        return _decode(data, api.AcceptedMany).task_ids

    def task(self, task_id: str, wait: float = 0) -> api.TaskView:
        """A task as it is now, or after at most `wait` seconds (60 at most) as soon as it is final."""
        wait = max(0, min(wait, MAX_WAIT))
        query = f"?wait={wait:g}" if wait else ""
        path = f"/v2/task/{quote(task_id, safe='')}/{query}"
        return _decode(self._call("GET", path, wait=wait), api.TaskView)

    def result(self, task_id: str, wait: float = 0) -> api.ResultView:
        """A task's status and result, after at most `wait` seconds (60 at most) as soon as it is final."""
        wait = max(0, min(wait, MAX_WAIT))
        path = f"/v2/task/{quote(task_id, safe='')}/result?wait={wait:g}"
        return _decode(self._call("GET", path, wait=wait), api.ResultView)

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

    # logs, containers

    def task_log(self, task_id: str, cursor: str = "", limit: int = 1000) -> api.LogPage:
        """A page of what a task has printed, oldest first; `limit` is 10000 lines at most."""
        return self._log(f"/v2/task/{quote(task_id, safe='')}/logs", cursor, limit)

    def follow_task(self, task_id: str) -> Iterator[api.LogLine]:
        """What a task has printed and prints, until it is final. A server that restarts is waited for."""
        return self._follow(f"/v2/task/{quote(task_id, safe='')}/logs")

    def container_log(self, container_id: str, cursor: str = "", limit: int = 1000) -> api.LogPage:
        """A page of everything printed in a container, oldest first; `limit` is 10000 lines at most."""
        return self._log(f"/v2/containers/{quote(container_id, safe='')}/logs", cursor, limit)

    def follow_container(self, container_id: str) -> Iterator[api.LogLine]:
        """Everything printed in a container, until it has stopped. A server that restarts is waited for."""
        return self._follow(f"/v2/containers/{quote(container_id, safe='')}/logs")

    def containers(self, ended: int = 0) -> list[api.ContainerView]:
        """Containers that are not stopped, newest first; with `ended` the newest so many (1000 at most) of all."""
        query = f"?ended={ended}" if ended else ""
        return _decode(self._call("GET", f"/v2/containers{query}"), list[api.ContainerView])

    def stop_container(self, container_id: str, grace: float) -> api.ContainerView:
        """End a container; its running tasks may finish for `grace` seconds, then they are retried."""
        path = f"/v2/containers/{quote(container_id, safe='')}/stop?grace={grace:g}"
        return _decode(self._call("POST", path), api.ContainerView)

    def _log(self, path: str, cursor: str, limit: int) -> api.LogPage:
        return _decode(self._call("GET", f"{path}?{urlencode({'cursor': cursor, 'limit': limit})}"), api.LogPage)

    def _follow(self, path: str) -> Iterator[api.LogLine]:
        cursor, away = "", 0.0
        while True:
            try:
                for kind, after, data in self._events(f"{path}?cursor={cursor}", cursor):
                    cursor, away = after, time.monotonic()
                    if kind == "end":
                        return
                    yield _decode(data, api.LogLine)
            except Unreachable:
                if time.monotonic() - away > AWAY_SECONDS:
                    raise
                time.sleep(RETRY_SECONDS)

    def _events(self, path: str, cursor: str) -> Iterator[tuple[str, str, bytes]]:
        """The kind, id and data of each server-sent event (one line of data each); the first id is `cursor`."""
        kind, data = "", b""
        answer = self._open("GET", path, accept=EVENTS, wait=QUIET_SECONDS)
        with self._to_the_end(answer, "the log"):
            for line in answer.lines():
                field, _, value = line.rstrip(b"\r\n").partition(b": ")
                if field == b"event":
                    kind = value.decode()
                elif field == b"id":
                    cursor = value.decode()
                elif field == b"data":
                    data = value
                elif not field and kind:
                    yield kind, cursor, data
                    kind = ""
        raise Unreachable(f"{self.url} ended the log in the middle.", "Try again.")

    # deployments

    def build_image(self, spec: ImageSpec) -> Iterator[api.BuildEvent]:
        """Build an image; yields each line as it comes. The last event has `image_id` or `error`."""
        body = msgspec.json.encode(api.BuildRequest(spec))
        answer = self._open("POST", "/v2/images", body, wait=BUILD_SECONDS)
        with self._to_the_end(answer, "the build"):
            for line in answer.lines():
                if line.strip():
                    yield _decode(line, api.BuildEvent)

    def has_source(self, source_id: str) -> bool:
        """Whether the server holds the packed source with this sha256."""
        answer = self._exchange("HEAD", f"/v2/sources/{quote(source_id, safe='')}")
        self._read(answer)
        if answer.status not in (200, 404):
            raise _error(answer.status, b"")
        return answer.status == 200

    def put_source(self, source_id: str, file: BinaryIO) -> None:
        """Upload packed source from a file, streamed."""
        self._call("PUT", f"/v2/sources/{quote(source_id, safe='')}", file, kind=ZIP)

    def get_source(self, source_id: str, file: BinaryIO) -> None:
        """Download packed source into a file, streamed."""
        answer = self._open("GET", f"/v2/sources/{quote(source_id, safe='')}")
        with self._to_the_end(answer, "the download"):
            for block in answer.blocks():
                file.write(block)

    def deploy(self, request: api.DeployRequest) -> api.Deployed:
        """Make a new version of a name, or find or make the draft when the name is empty."""
        data = self._call("POST", "/v2/deployments", msgspec.json.encode(request), repeatable=not request.name)
        return _decode(data, api.Deployed)

    # outputs, workspace, server

    def save_output(self, task_id: str, attempt: int, name: str, file: BinaryIO) -> api.OutputSaved:
        """Upload a file as an output of a running attempt, streamed."""
        query = urlencode({"task_id": task_id, "attempt": attempt, "name": name})
        return _decode(self._call("PUT", f"/v2/outputs?{query}", file, kind=BYTES), api.OutputSaved)

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

    # secrets

    def create_secret(self, name: str, value: str) -> api.SecretView:
        """Keep a new secret."""
        body = msgspec.json.encode(api.NewSecret(name, value))
        return _decode(self._call("POST", "/v2/secrets", body, repeatable=False), api.SecretView)

    def modify_secret(self, name: str, value: str) -> api.SecretView:
        """Give a secret a new value."""
        body = msgspec.json.encode(api.NewValue(value))
        return _decode(self._call("PATCH", f"/v2/secrets/{quote(name, safe='')}", body), api.SecretView)

    def secrets(self) -> list[api.SecretView]:
        """All secrets by name, without their values."""
        return _decode(self._call("GET", "/v2/secrets"), list[api.SecretView])

    def secret(self, name: str) -> api.SecretShown:
        """A secret with its value."""
        return _decode(self._call("GET", f"/v2/secrets/{quote(name, safe='')}"), api.SecretShown)

    def delete_secret(self, name: str, *, force: bool = False) -> None:
        """Forget a secret; with `force` also one that deployments use."""
        self._call("DELETE", f"/v2/secrets/{quote(name, safe='')}{'?force=true' if force else ''}")

    # the wire

    def _call(
        self, method: str, path: str, body: Body = b"", *, kind: str = "", wait: float = 0, repeatable: bool = True
    ) -> bytes:
        """The body of the answer to a request; an answer that is an error is raised."""
        return self._read(self._open(method, path, body, kind=kind, wait=wait, repeatable=repeatable))

    def _open(
        self,
        method: str,
        path: str,
        body: Body = b"",
        *,
        kind: str = "",
        accept: str = "",
        wait: float = 0,
        repeatable: bool = True,
    ) -> Answer:
        """Send a request and return its answer, unread; an answer that is an error is raised."""
        answer = self._exchange(method, path, body, kind=kind, accept=accept, wait=wait, repeatable=repeatable)
        if answer.status >= 400:
            raise _error(answer.status, self._read(answer))
        return answer

    def _exchange(
        self,
        method: str,
        path: str,
        body: Body = b"",
        *,
        kind: str = "",
        accept: str = "",
        wait: float = 0,
        repeatable: bool = True,
    ) -> Answer:
        """Send on the kept connection if there is one, and once more on a new one if that had been closed meanwhile.

        A request that must not be done twice is sent again only if it did not go out whole.
        """
        size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
        head = self._head(method, path, f"Accept: {accept}\r\n" if accept else "", kind, size)
        timeout = self._timeout + wait
        while True:
            kept = self._take_kept(timeout)
            connection, whole = kept or self._connect(timeout), False
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # there may be an early answer
                    connection.send(head, body, size)
                    whole = True
                return connection.answer(to_head=method == "HEAD")
            except OSError as error:
                connection.close()
                if not kept or isinstance(error, TimeoutError) or (whole and not repeatable):
                    raise self._unanswered(error, timeout, accepted=whole and not repeatable) from None
            except BaseException:
                connection.close()
                raise
            if not isinstance(body, bytes):
                body.seek(0)

    def _head(self, method: str, path: str, content: str, kind: str, size: int) -> bytes:
        if kind:
            content += f"Content-Type: {kind}\r\n"
        if size or method in ("POST", "PUT"):
            content += f"Content-Length: {size}\r\n"
        return f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}{content}\r\n".encode("ascii")

    def _connect(self, timeout: float) -> Connection:
        try:
            return Connection(*self._address, tls=self._tls, timeout=timeout)
        except OSError as error:
            raise self._unanswered(error, timeout, accepted=False) from None

    def _take_kept(self, timeout: float) -> Connection | None:
        """This thread's kept connection if it is still good."""
        kept: tuple[int, float, Connection] | None = getattr(self._kept, "one", None)
        if kept is None:
            return None
        self._kept.one = None
        pid, since, connection = kept
        if pid == os.getpid() and time.monotonic() - since < IDLE_SECONDS and connection.is_quiet():
            connection.wait_at_most(timeout)
            return connection
        connection.close()
        return None

    def _read(self, answer: Answer) -> bytes:
        with self._to_the_end(answer, "the answer"):
            return answer.read()

    @contextlib.contextmanager
    def _to_the_end(self, answer: Answer, what: str) -> Iterator[None]:
        """Keep the connection of an answer that is read to its end for the thread's next request."""
        try:
            yield
        except OSError as error:
            raise Unreachable(
                f"{self.url} went away in the middle of {what} ({_reason(error)}).", "Try again."
            ) from None
        finally:
            if answer.leaves_open:
                self._kept.one = (os.getpid(), time.monotonic(), answer.connection)
            else:
                answer.connection.close()

    def _unanswered(self, error: OSError, timeout: float, *, accepted: bool) -> Unreachable:
        late = isinstance(error, TimeoutError)
        if accepted:
            what = f"did not answer within {timeout:g} s" if late else "closed the connection before it answered"
            advice = "What was sent may have been accepted: look at `treadle task list` before sending it again."
            return Unreachable(f"{self.url} {what}.", advice)
        if late:
            return Unreachable(f"{self.url} did not answer within {timeout:g} s.", "Is the server busy or stopped?")
        advice = "Start a server with `treadle up`, or set TREADLE_URL to one that runs."
        return Unreachable(f"No server answers at {self.url} ({_reason(error)}).", advice)


def _parts(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else DEFAULT_PORT[parts.scheme]
        if parts.hostname and VISIBLE.fullmatch(url):
            return parts, port
    except (ValueError, KeyError):  # of a port or an IPv6 address that is none, of another scheme
        pass
    raise InvalidInput(f"{url!r} is not the URL of a server.", "Give it as http://HOST:PORT (TREADLE_URL).")


def _reason(error: OSError) -> str:
    return error.strerror.lower() if error.strerror else str(error)


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
