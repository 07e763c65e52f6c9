"""Requests to queues over a real socket: whatever way they go inside, clients see HTTP/1.1 as ever."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import tracemalloc
from collections.abc import Iterator

import pytest
import uvicorn

from treadle.server import main
from treadle.server.lane import LaneHttp, Passage

from .inside import SECONDS, Inside

HEAD = "POST /taskqueue/resize HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n"
ACCEPTED = re.compile(rb'\{"task_id":"[0-9a-f-]{36}"\}')


class Wire:
    """A server that listens, and one connection to it."""

    def __init__(self, inside: Inside, keep_alive: float = 75) -> None:
        self.inside = inside
        config = main._http(inside.app)
        config.timeout_keep_alive = keep_alive  # type: ignore[assignment] -- uvicorn counts in any number
        self._server = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        self._served = asyncio.run_coroutine_threadsafe(self._server._serve([listener]), inside.loop)
        Inside.until(lambda: self._server.started)
        self.socket = socket.create_connection(address, SECONDS)
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()
        self._server.should_exit = True
        self._served.result(SECONDS)

    def send(self, *pieces: str) -> None:
        for piece in pieces:
            self.socket.sendall(piece.encode())

    def post(self, body: str, *headers: str) -> str:
        """A request as text."""
        more = "".join(f"{header}\r\n" for header in headers)
        return f"{HEAD.format(self.inside.token)}{more}Content-Length: {len(body)}\r\n\r\n{body}"

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers and body."""
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()) and line:
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def ended(self) -> bool:
        """Whether the server has closed the connection, after all that it said was read."""
        return self.file.read(1) == b""


@pytest.fixture
def wire(server: Inside) -> Iterator[Wire]:
    server.deploy()
    wire = Wire(server)
    yield wire
    wire.close()


def test_one_connection_takes_request_after_request(wire: Wire) -> None:
    """To queues and to other routes, in any order."""
    for _ in range(2):
        wire.send(wire.post('{"x":1}'))
        status, headers, body = wire.answer()
        assert (status, headers["content-type"]) == (200, "application/json")
        assert headers["x-content-type-options"] == "nosniff"
        assert ACCEPTED.fullmatch(body)
        wire.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer()[0] == 200


def test_requests_that_come_at_once_are_answered_in_order(wire: Wire) -> None:
    """A client may send the next before it has the answer (RFC 9112, 9.3.2)."""
    health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    wire.send(wire.post("[1]") + wire.post("{}") + health + wire.post("{}") + wire.post("[1]"))
    assert [wire.answer()[0] for _ in range(5)] == [400, 200, 200, 200, 400]


def test_a_body_may_come_in_pieces(wire: Wire) -> None:
    """As may the head; nothing is submitted before it is whole."""
    text = wire.post('{"x":' + " " * 300 + "1}")
    wire.send(*(text[at : at + 40] for at in range(0, len(text), 40)))
    assert wire.answer()[0] == 200


def test_a_body_may_come_in_chunks(wire: Wire) -> None:
    """Without a length said before."""
    head = HEAD.format(wire.inside.token) + "Transfer-Encoding: chunked\r\n\r\n"
    wire.send(head, '4\r\n{"x"\r\n', "3\r\n:1}\r\n", "0\r\n\r\n")
    assert ACCEPTED.fullmatch(wire.answer()[2])


def test_a_body_takes_no_more_memory_than_it_has_however_small_its_pieces_are(wire: Wire) -> None:
    """Each as an object of its own would take thirty times as much, of whoever has no token."""
    connection = LaneHttp.__new__(LaneHttp)
    connection._passage = passage = Passage(keep_alive=True)
    connection._enqueue = wire.inside.app.enqueue
    wire.inside.app.enqueue.max_body = 100_000
    tracemalloc.start()
    try:
        for number in range(50_000):
            connection.on_body(b"%02d" % (number % 100))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not passage.response_complete
    assert held < 300_000


def test_a_body_over_the_limit_is_refused_once_its_length_is_known(wire: Wire) -> None:
    """Before any of it is sent, and the limit is named."""
    wire.send(HEAD.format(wire.inside.token) + "Content-Length: 1001\r\n\r\n")
    status, _, body = wire.answer()
    assert (status, json.loads(body)["code"]) == (413, "too_large")
    assert "over the limit of 1000 bytes" in json.loads(body)["error"]


def test_chunks_over_the_limit_are_refused_when_they_pass_it(wire: Wire) -> None:
    """However many there are to come; once they have come, the connection can be used again."""
    wire.send(HEAD.format(wire.inside.token) + "Transfer-Encoding: chunked\r\n\r\n")
    wire.send(*["190\r\n" + "x" * 400 + "\r\n"] * 3)
    assert wire.answer()[0] == 413
    wire.send("190\r\n" + "x" * 400 + "\r\n0\r\n\r\n" + wire.post("{}"))
    assert wire.answer()[0] == 200


def test_a_stranger_is_refused_before_the_body(wire: Wire) -> None:
    """Nothing that is sent without a token is kept; the connection can be used again after it."""
    head = HEAD.format("wrong")
    wire.send(head + "Content-Length: 900\r\n\r\n")
    status, _, body = wire.answer()
    assert (status, json.loads(body)["code"]) == (401, "unauthorized")
    wire.send("x" * 900 + wire.post("{}"))
    assert wire.answer()[0] == 200


def test_a_connection_is_closed_when_the_client_asks_for_it(wire: Wire) -> None:
    """The answer says so."""
    wire.send(wire.post("{}", "Connection: close"))
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert wire.ended()


def test_nothing_behind_the_last_request_is_carried_out(wire: Wire) -> None:
    """Whatever is sent after a request with `Connection: close` is no request (RFC 9112, 9.6), at once or later."""
    last = wire.post("{}", "Connection: close")
    wire.send(last + wire.post('{"x":1}') + "DELETE /v2/task/cancel HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.answer()[0] == 200
    assert wire.ended()
    assert len(wire.inside.request("GET", "/v2/task/").json()["data"]) == 1


def test_a_client_of_http_1_0_is_answered_and_let_go(wire: Wire) -> None:
    """It does not know of connections that stay."""
    wire.send(wire.post("{}").replace("HTTP/1.1", "HTTP/1.0"))
    assert wire.answer()[0] == 200
    assert wire.ended()


def test_a_client_may_ask_before_it_sends_the_body(wire: Wire) -> None:
    """curl does so with large ones: 100 Continue, then the answer (RFC 9110, 10.1.1)."""
    wire.send(HEAD.format(wire.inside.token) + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert wire.answer()[0] == 100
    wire.send("{}")
    assert wire.answer()[0] == 200


def test_a_request_that_is_cut_off_is_no_task(wire: Wire) -> None:
    """Half a body never becomes one."""
    wire.send(wire.post('{"x":1}')[:-1])
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.ended()
    assert wire.inside.request("GET", "/v2/task/").json()["data"] == []


def test_a_connection_that_rests_for_too_long_is_closed(server: Inside) -> None:
    """After the time of `timeout_keep_alive` without a request, and not before."""
    server.deploy()
    wire = Wire(server, keep_alive=0.05)
    try:
        wire.send(wire.post("{}"))
        assert wire.answer()[0] == 200
        assert wire.ended()
    finally:
        wire.close()


def test_a_failure_that_nobody_foresaw_is_an_answer(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 in the one error shape, without what it was."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    for step in ("aim", "ask"):
        monkeypatch.setattr(wire.inside.app.enqueue, step, broken)
        wire.send(wire.post("{}"))
        status, _, body = wire.answer()
        assert (status, json.loads(body)["code"]) == (500, "internal")
        assert b"secret" not in body
