"""The server's side of the runner link, in a thread: admits runners, keeps what they say, says what a test wants."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Thread
from typing import Any, TypeVar

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from treadle.model.log import Line
from treadle.model.wire import (
    MAX_FRAME,
    RUNNER_PATH,
    AttemptRef,
    Beat,
    Finished,
    Hello,
    Lines,
    Ready,
    RunnerToServer,
    ServerToRunner,
    Settled,
    Work,
    decode_from_runner,
    encode,
    split,
)

DEADLINE = 30.0
T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, seconds: float = DEADLINE) -> T:
    """Look again and again until the condition holds; fail with `what` after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return value


class Link:
    """One connection of a runner."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._said: queue.Queue[RunnerToServer | None] = queue.Queue()
        self.heard: list[RunnerToServer] = []  # everything, in order
        self.hello: Hello

    def listen(self) -> None:
        try:
            for frame in self._connection:
                for message in map(decode_from_runner, split(frame)):
                    self.heard.append(message)
                    if not isinstance(message, Beat | Lines):
                        self._said.put(message)
        except ConnectionClosed:
            pass
        finally:
            self._said.put(None)

    def next(self, kind: type[T], seconds: float = DEADLINE) -> T:
        """The next message, which must be of this kind (heartbeats and printed lines aside)."""
        message = self._said.get(timeout=seconds)
        assert isinstance(message, kind), message
        return message

    def printed(self, ref: AttemptRef | None = None) -> list[Line]:
        """What an attempt, or without one the container itself, has printed so far."""
        return [line for m in list(self.heard) if isinstance(m, Lines) and m.ref == ref for line in m.lines]

    def prints(self, text: str, ref: AttemptRef | None = None) -> bool:
        """True as soon as a line with this text has come."""
        return wait_until(lambda: any(text in line.text for line in self.printed(ref)), f"{text!r} in a line")

    def last_words(self, seconds: float = DEADLINE) -> list[RunnerToServer]:
        """All that the runner has still said on a connection that has ended."""
        return list(iter(lambda: self._said.get(timeout=seconds), None))

    def ended(self, seconds: float = DEADLINE) -> bool:
        """True when the runner has closed the connection and had nothing more to say."""
        self.next(type(None), seconds)
        return True

    def silent(self, seconds: float) -> bool:
        """True when nothing but heartbeats comes for a while."""
        try:
            self.next(object, seconds)
        except queue.Empty:
            return True
        return False

    def send(self, *messages: ServerToRunner) -> None:
        self._connection.send(encode(list(messages)))

    def work(self, task_id: str, *args: Any, attempt: int = 1, **kwargs: Any) -> AttemptRef:
        """Send one task."""
        ref = AttemptRef(task_id, attempt)
        self.send(Work(ref, json.dumps({"args": args, "kwargs": kwargs}).encode()))
        return ref

    def run(self, task_id: str, *args: Any, **kwargs: Any) -> Finished:
        """Send one task, take its report and settle it."""
        ref = self.work(task_id, *args, **kwargs)
        finished = self.next(Finished)
        assert finished.ref == ref
        self.settle(ref)
        return finished

    def value(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Send one task and return its result."""
        finished = self.run(task_id, *args, **kwargs)
        assert finished.result is not None, finished
        return json.loads(finished.result)

    def settle(self, *refs: AttemptRef) -> None:
        self.send(Settled(list(refs)))

    def wait_ready(self, count: int = 1) -> None:
        """Wait until this many children can take a task."""
        free = self.hello.free
        while free < count:
            free += self.next(Ready).free

    def close(self, code: int = 1000) -> None:
        self._connection.close(code)


class Server:
    """Listens on a free port of loopback. `refuse_with` answers handshakes with that HTTP status instead."""

    def __init__(self, port: int = 0) -> None:
        self.refuse_with: int | None = None
        self.requests: queue.Queue[Request] = queue.Queue()
        self._links: queue.Queue[Link] = queue.Queue()
        self._server = serve(
            self._talk, "127.0.0.1", port, process_request=self._admit, max_size=MAX_FRAME, compression=None
        )
        self.port = self._server.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def accept(self, seconds: float = DEADLINE) -> Link:
        """The next connection of a runner, after its Hello."""
        link = self._links.get(timeout=seconds)
        link.hello = link.next(Hello)
        return link

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.put(request)
        if self.refuse_with is not None:
            return connection.respond(HTTPStatus(self.refuse_with), "")
        if request.path != RUNNER_PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        link = Link(connection)
        self._links.put(link)
        link.listen()
