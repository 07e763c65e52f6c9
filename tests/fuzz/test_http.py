"""What no well-behaved client sends, over a socket: broken heads, lies about lengths, bodies cut off, slow ones."""

from __future__ import annotations

import json
import re
import socket
import threading

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.server import patience
from treadle.server.patience import MAX_HEAD, WINDOW_BYTES

from .effort import effort
from .listening import Listening, check_error

HOST = b"Host: x\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: upgrade\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
RUNNER = b"GET /link/runner HTTP/1.1\r\n" + HOST
SOURCE = b"/v2/sources/" + b"0" * 64


def token(server: Listening) -> bytes:
    return b"Authorization: Bearer %s\r\n" % server.token.encode()


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer in what came over a connection."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        size = int(length[1]) if length else 0
        found.append((status, rest[:size]))
        data = rest[size:]
    return found


def refused(server: Listening, *pieces: bytes) -> int:
    """The status with which this was refused, in the one shape."""
    [(status, body)] = answers(server.raw(*pieces))
    check_error(status, json.loads(body))
    return status


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /v2/task/%00%zz%ff HTTP/1.1\r\n" + HOST + b"\r\n", 401),
        (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"PUT /v2/task HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", 405),
        (b"GET /taskqueue/resize HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET /openapi.json/other HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET /link/runner HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 3 * MAX_HEAD, 431),
        (b"GET /v2/task HTTP/1.1\r\n" + HOST + b"Cookie: \xff=;;=\r\nAccept: ;;\xff\r\nAuthorization: Basic \xff\r\n\r\n", 401),
        # handshakes
        (b"GET /v2/task HTTP/1.1\r\n" + HOST + UPGRADE + KEY + b"\r\n", 404),
        (RUNNER + UPGRADE + KEY + b"\r\n", 401),
        (RUNNER + UPGRADE + KEY + b"Authorization: Bearer x\r\n\r\n", 401),
        (RUNNER + UPGRADE + b"\r\n", 400),
        (RUNNER + UPGRADE + KEY.replace(b"13", b"99") + b"\r\n", 400),
        (RUNNER + UPGRADE + KEY.replace(b"dGhl", b"@@@@") + b"\r\n", 400),
        (RUNNER + UPGRADE + KEY + KEY + b"\r\n", 400),
        (RUNNER + UPGRADE + KEY + b"".join(b"X%d: y\r\n" % number for number in range(200)) + b"\r\n", 400),
        (RUNNER + UPGRADE + KEY + b"X: " + b"y" * 9000 + b"\r\n\r\n", 400),
        (RUNNER + UPGRADE + KEY + b"Sec-WebSocket-Protocol: ,,\r\n\r\n", 400),
        (RUNNER + UPGRADE + KEY + b"Sec-WebSocket-Protocol: \r\n\r\n", 400),
        (RUNNER + UPGRADE + KEY + b"Sec-WebSocket-Protocol: a, \xff\r\n\r\n", 400),
        (RUNNER + UPGRADE + KEY + b"Sec-WebSocket-Protocol: a, b\r\n\r\n", 401),
        (RUNNER + UPGRADE + KEY + b"Sec-WebSocket-Extensions: ;;;\r\nOrigin: \xff\r\n\r\n", 401),
        (RUNNER + UPGRADE.replace(b"upgrade\r\n", b"upgrade, a b\r\n") + KEY + b"\r\n", 400),
        (RUNNER.replace(b" HTTP", b"?" + b"x" * 9000 + b" HTTP") + UPGRADE + KEY + b"\r\n", 400),
        (RUNNER.replace(b"1.1", b"1.0") + UPGRADE + KEY + b"\r\n", 401),
        (RUNNER.replace(b"GET", b"POST") + UPGRADE + KEY + b"Content-Length: 2\r\n\r\n{}", 400),
    ],
)
def test_a_head_that_is_none_is_refused_in_the_one_shape(server: Listening, request_: bytes, status: int) -> None:
    """Also where neither a route nor the framework, but the parser or the WebSocket library would refuse it."""
    assert refused(server, request_) == status


@pytest.mark.parametrize("host", [b"a:65536", b"a:b", b"a:-1", b"[::1]:x", b"[zz]", b"a b", b"", b":80", b"a:\xd9\xa3", b"user@h:1", b"a" * 9000])
@pytest.mark.parametrize(("path", "status"), [(b"/v2/workspace", 401), (b"/nothing", 404), (b"/output/id/x", 400), (b"/taskqueue/x", 405)])
def test_a_host_that_is_none_changes_no_refusal(server: Listening, host: bytes, path: bytes, status: int) -> None:
    """It is not looked at, except for characters that no host has."""
    got = refused(server, b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert got in (status, 400)


@pytest.mark.parametrize("path", [b"POST /taskqueue/resize", b"POST /v2/secrets", b"PUT " + SOURCE])
@pytest.mark.parametrize(
    ("lengths", "body"),
    [
        (b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{}"),
        (b"Content-Length: -2\r\n", b"{}"),
        (b"Content-Length: 99999999999999999999999\r\n", b"{}"),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: gzip\r\n", b"{}"),
    ],
)
def test_two_lengths_or_a_length_that_is_none_are_refused(server: Listening, path: bytes, lengths: bytes, body: bytes) -> None:
    """What two servers could read as two different requests is read as none."""
    assert refused(server, path + b" HTTP/1.1\r\n" + HOST + token(server) + lengths + b"\r\n" + body) == 400


@pytest.mark.parametrize(
    ("path", "length"),
    [(b"POST /taskqueue/resize", 100_001), (b"POST /v2/volumes", 100_001), (b"PUT " + SOURCE, 2**30 + 1)],
)
def test_a_body_that_says_it_is_too_large_is_refused_unread(server: Listening, path: bytes, length: int) -> None:
    """With the limit."""
    head = path + b" HTTP/1.1\r\n" + HOST + token(server) + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % length
    [(status, body)] = answers(server.raw(head))
    assert status == 413
    assert str(length - 1) in json.loads(body)["error"]


@pytest.mark.parametrize("path", [b"POST /taskqueue/resize", b"POST /v2/secrets", b"DELETE /v2/task/cancel", b"PUT " + SOURCE])
def test_a_body_that_is_cut_off_does_nothing(server: Listening, path: bytes) -> None:
    """The client that hung up gets no answer, and no task, secret or source comes of it."""
    before = server.request("GET", "/v2/task", params={"limit": 1000}).json()
    cut = path + b" HTTP/1.1\r\n" + HOST + token(server) + b'Content-Length: 200\r\n\r\n{"x": 1'
    assert server.raw(cut) == b""
    assert server.request("GET", "/v2/task", params={"limit": 1000}).json() == before
    assert server.request("HEAD", SOURCE.decode()).status_code == 200  # the one that was there
    assert server.request("GET", "/v2/secrets").json() == []


def test_a_head_that_does_not_come_is_waited_for_only_so_long(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing, or half of a head, is told so and closed."""
    monkeypatch.setattr(patience, "HEAD_SECONDS", 1.0)  # a busy machine may need some of it to send
    for said in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "):
        assert slow(server, said) == 408


def slow(server: Listening, said: bytes) -> int:
    """The status of the answer to a client that says this and waits."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(said)
        [(status, body)] = answers(b"".join(iter(lambda: line.recv(65536), b"")))
    check_error(status, json.loads(body))
    return status


@pytest.mark.parametrize("path", [b"POST /taskqueue/resize", b"POST /v2/secrets", b"PUT " + SOURCE])
def test_a_body_that_comes_too_slowly_is_refused(server: Listening, monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    """It must bring so many bytes in each window of time."""
    monkeypatch.setattr(patience, "WINDOW_SECONDS", 0.05)
    head = path + b" HTTP/1.1\r\n" + HOST + token(server) + b"Content-Length: 50000\r\n\r\n"
    assert slow(server, head + b"x" * (WINDOW_BYTES - 1)) == 408


CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("path", [b"POST /taskqueue/resize", b"POST /v2/secrets", b"PUT " + SOURCE])
@pytest.mark.parametrize(
    "endless",
    [b"0\r\n" + b"a:b\r\n" * 100_000, b"0\r\na:" + b"b" * 500_000, b"2;" + b"a=b;" * 125_000, b"0;" + b"a" * 500_000],
    ids=["trailers", "trailer", "extensions", "extension"],
)  # fmt: skip
def test_what_is_neither_head_nor_body_has_an_end(server: Listening, monkeypatch: pytest.MonkeyPatch, path: bytes, endless: bytes) -> None:
    """Trailers, and what may stand beside the length of a chunk, are not kept, and are not taken for ever."""
    monkeypatch.setattr(patience, "LINGER_SECONDS", 20.0)  # until all is sent
    assert refused(server, path + b" HTTP/1.1\r\n" + CHUNKED + token(server) + b"\r\n" + endless) == 431


def test_an_answer_is_not_followed_by_another_one(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on sending trailers after the refusal of a request is cut off, and told nothing more."""
    monkeypatch.setattr(patience, "LINGER_SECONDS", 20.0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(b"POST /health HTTP/1.1\r\n" + CHUNKED + b"\r\n")
        first = line.recv(65536)
        line.sendall(b"0\r\n" + b"a:b\r\n" * 100_000)
        line.shutdown(socket.SHUT_WR)
        [(status, _)] = answers(first + b"".join(iter(lambda: line.recv(65536), b"")))
    assert status == 405


def test_a_trailer_is_no_header(server: Listening) -> None:
    """A token is said in the head, where whatever stands in front of the server sees it."""
    said = b"POST /v2/secrets HTTP/1.1\r\n" + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + token(server) + b"\r\n"
    assert refused(server, said) == 401


def test_a_large_body_may_take_its_time(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as each window brings enough, however many there are."""
    monkeypatch.setattr(patience, "WINDOW_SECONDS", 0.01)
    monkeypatch.setattr(patience, "WINDOW_BYTES", 0)  # nobody can say how much a busy machine sends in one
    body = json.dumps({"x": "y" * 50_000}).encode()
    head = b"POST /taskqueue/resize HTTP/1.1\r\n" + HOST + token(server) + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        for piece in (head, *pieces):
            line.sendall(piece)
            threading.Event().wait(0.03)
        [(status, _)] = answers(b"".join(iter(lambda: line.recv(65536), b"")))
    assert status == 200


METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"]
PATHS = [b"/", b"/v2/task", b"/v2/task/%s/result", b"/taskqueue/%s", b"/v2/volumes/%s/file?path=%s", b"/output/id/%s", b"/link/%s"]
NAMES = [b"Accept", b"Content-Type", b"Cookie", b"Range", b"Expect", b"Last-Event-ID", b"Content-Length", b"Connection"]


@st.composite
def requests(draw: st.DrawFn, authorization: bytes) -> bytes:
    """A request whose lines are in order, and nothing else of it."""
    target = draw(st.sampled_from(PATHS)).replace(b"%s", draw(st.binary(max_size=12))) + b"?" + draw(st.binary(max_size=40))
    headers = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=20)), max_size=4))
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    who = authorization if draw(st.booleans()) else b""
    return draw(st.sampled_from(METHODS)) + b" " + target + b" HTTP/1.1\r\n" + HOST + who + lines + b"\r\n" + draw(st.binary(max_size=60))


def test_no_bytes_make_the_server_fail(server: Listening) -> None:
    """Whatever is in a request, each answer is one of ours; and most are answered, for few say that more is to come."""
    answered = []

    @effort(60)
    @given(data=st.data())
    def each(data: st.DataObject) -> None:
        found = answers(server.raw(data.draw(requests(token(server)))))
        answered.append(bool(found))
        for status, told in found:
            assert status < 500
            if status >= 400 and told:
                check_error(status, json.loads(told))

    each()
    assert sum(answered) > len(answered) / 2


def test_the_server_is_well(server: Listening) -> None:
    """After all of that."""
    assert httpx2.get(f"{server.url}/health", trust_env=False).json()["status"] == "ok"
