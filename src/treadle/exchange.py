"""Requests to a server and its answers: one kept-alive connection per thread, errors told as our own."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from treadle.connection import Answer, Connection
from treadle.model import api
from treadle.model.container import RELAY
from treadle.model.errors import BY_CODE, InvalidInput, TreadleError, Unreachable

T = TypeVar("T")
Body = bytes | BinaryIO
IDLE_SECONDS = 4.0  # servers close a connection that was idle for 5 s or more; do not race them
DEFAULT_PORT = {"http": 80, "https": 443}
VISIBLE = re.compile(r"[!-~]*")  # ASCII without spaces: what a request's head may hold


class Exchange:
    """With one server, with one token. May be shared by threads and survives a fork."""

    def __init__(self, url: str, token: str = "", timeout: float = 30.0) -> None:
        parts, port = _parts(url)
        if not VISIBLE.fullmatch(token):
            raise InvalidInput("The token holds a space, or a character that no token has.", "Check TREADLE_TOKEN.")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._tls = parts.scheme == "https"
        self._address = (parts.hostname or "", port)
        relay, _, relay_port = os.environ.get(RELAY, "").rpartition(":")
        self._relay = (relay, int(relay_port)) if relay and relay_port.isdigit() else None
        self._headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\nAccept-Encoding: identity\r\n"
        if token:
            self._headers += f"Authorization: Bearer {token}\r\n"
        self._kept = threading.local()

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
            raise error_of(answer.status, self._read(answer))
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
            return Connection(*self._address, tls=self._tls, timeout=timeout, through=self._relay)
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
        try:
            return answer.read()
        except OSError as error:
            raise self._cut_off("the answer", error) from None
        finally:
            self._keep(answer)

    @contextlib.contextmanager
    def _to_the_end(self, answer: Answer, what: str) -> Iterator[None]:
        """While an answer is read that comes in pieces."""
        try:
            yield
        except OSError as error:
            raise self._cut_off(what, error) from None
        finally:
            self._keep(answer)

    def _keep(self, answer: Answer) -> None:
        """Keep the connection of an answer that was read to its end for the thread's next request."""
        if answer.leaves_open:
            self._kept.one = (os.getpid(), time.monotonic(), answer.connection)
        else:
            answer.connection.close()

    def _cut_off(self, what: str, error: OSError) -> Unreachable:
        return Unreachable(f"{self.url} went away in the middle of {what} ({_reason(error)}).", "Try again.")

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


def decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        advice = "Is TREADLE_URL the URL of a Treadle server of this version?"
        raise TreadleError(f"The server's answer is not what was expected: {error}.", advice) from None


def error_of(status: int, data: bytes) -> TreadleError:
    """The error that the server's answer stands for; one without our body is told by its status."""
    try:
        body = msgspec.json.decode(data, type=api.ErrorBody)
    except msgspec.DecodeError:
        by_status = {kind.status: kind for kind in reversed(BY_CODE.values())}
        kind = by_status.get(status, TreadleError)
        return kind(f"The server answered with HTTP status {status}.", "Is TREADLE_URL the URL of a Treadle server?")
    return BY_CODE.get(body.code, TreadleError)(body.error, body.advice)
