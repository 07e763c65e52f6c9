"""A runner that says more than is written down, or takes nothing of what it is told: its link is held back, or cut off."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.frames import Frame, Opcode

from server.inside import Inside
from server.test_links import agent, runner, wanted_container
from treadle.model.log import Line, Stream
from treadle.model.wire import (
    MAX_ITEMS,
    RUNNER_PATH,
    AttemptRef,
    Finished,
    Hello,
    Lines,
    Work,
    decode_for_runner,
    encode,
)
from treadle.server import sockets

from .listening import SECONDS, Listening

ENOUGH = 64 * 1024 * 1024  # bytes; what two kernels buffer on the way is a tenth of that


@contextmanager
def deaf(server: Listening) -> Iterator[socket.socket]:
    """The link of a runner, greeted; whoever has it speaks, and does not listen."""
    if not any(wanted.containers for wanted in server.wanted):
        server.submitted("resize", {"x": 1})
        server.until(lambda: any(wanted.containers for wanted in server.wanted))
    spec = next(wanted.containers[-1] for wanted in reversed(server.wanted) if wanted.containers)
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(SECONDS)
        line.connect(("127.0.0.1", server.port))
        line.sendall(
            f"GET {RUNNER_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {spec.token}\r\n\r\n".encode()
        )
        assert line.recv(1000).startswith(b"HTTP/1.1 101 ")
        line.sendall(framed(encode([Hello(spec.container_id, [], 0)])))
        server.until(lambda: spec.container_id in server.bridge.runners)
        yield line
    server.until(lambda: spec.container_id not in server.bridge.runners)


def framed(data: bytes, opcode: Opcode = Opcode.BINARY) -> bytes:
    return Frame(opcode, data).serialize(mask=True)


def said_until_cut(line: socket.socket, piece: bytes) -> int:
    """How many bytes are taken of somebody who repeats this, until the connection is gone."""
    said = 0
    try:
        while said < ENOUGH:
            line.sendall(piece)
            said += len(piece)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return said


def test_who_takes_no_answers_is_cut_off(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each report is answered, also that of a task which does not exist; answers are kept for somebody who reads them."""
    monkeypatch.setattr(sockets, "MAX_UNSENT", 1_000_000)
    with deaf(server) as line:
        assert said_until_cut(line, framed(encode([Finished(AttemptRef("x" * 100_000, 1), result=b"1")]))) < ENOUGH
    assert server.request("GET", "/health").status_code == 200


def test_who_takes_no_pongs_is_cut_off(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what the protocol itself answers kept without end."""
    monkeypatch.setattr(sockets, "MAX_FRAME", 0)
    with deaf(server) as line:
        assert said_until_cut(line, framed(b"x" * 100, Opcode.PING) * 1000) < ENOUGH


def test_who_does_not_read_is_not_told_why(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is refused while it takes nothing ends all the same."""
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.05)
    big = framed(encode([Finished(AttemptRef("x" * 500_000, 1), result=b"1")]))
    with deaf(server) as line:
        for _ in range(20):
            line.sendall(big)
        line.sendall(framed(b"\xc1"))
        assert said_until_cut(line, big) < ENOUGH


@pytest.fixture
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    server = Inside(tmp_path_factory.mktemp("pressure"), max_body=100_000)
    yield server
    server.close()


def test_no_more_is_read_than_is_written_down(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is behind, what a runner says waits on its side."""
    inside.deploy()
    line = agent(inside)
    inside.submitted("resize")
    container_id, token = wanted_container(inside, line)
    link = runner(inside, container_id, token, free=0)
    inside.until(lambda: container_id in inside.bridge.runners)
    behind, transaction = threading.Event(), inside.store.transaction

    def slow() -> object:
        assert behind.wait(SECONDS)
        return transaction()

    monkeypatch.setattr(inside.store, "transaction", slow)
    monkeypatch.setattr(inside.engine.writer, "run_here", lambda _calls: False)
    frame = encode([Lines([Line(1.0, Stream.STDOUT, "x" * 10_000)])] * 200)  # 2 MB
    for _ in range(50):
        link.say(frame)
    inside.until(lambda: link._in.qsize() < 50)
    for _ in range(100):
        inside.wait(asyncio.sleep(0))
    assert link._in.qsize() > 40
    behind.set()
    inside.until(lambda: link._in.qsize() == 0)


def test_work_comes_in_frames_that_a_runner_takes(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of it there is at once."""
    monkeypatch.setattr(sockets, "FULL", 100_000)
    inside.deploy(workers=4)
    line = agent(inside)
    tasks = [inside.submitted("resize", {"x": "y" * 40_000}) for _ in range(4)]
    link = runner(inside, *wanted_container(inside, line), free=4)
    frames = [link.hear()["bytes"] for _ in range(2)]
    assert all(len(frame) < 100_000 for frame in frames)
    works = [message for frame in frames for message in decode_for_runner(frame)]
    assert [work.ref.task_id for work in works if isinstance(work, Work)] == tasks


@pytest.mark.parametrize("message", [Hello("", [AttemptRef("", 1)] * (MAX_ITEMS + 1), 0), Lines([Line(1.0, Stream.STDOUT, "")] * (MAX_ITEMS + 1))])
def test_lists_have_a_limit(inside: Inside, message: Hello | Lines) -> None:
    """What is longer than a runner ever says closes the link, unread."""
    inside.deploy()
    line = agent(inside)
    inside.submitted("resize")
    link = runner(inside, *wanted_container(inside, line), free=0)
    link.say(encode([message]))
    while (event := link.hear())["type"] != "websocket.close":
        pass
    assert event["code"] == 4003
    assert str(MAX_ITEMS) in event["reason"]
