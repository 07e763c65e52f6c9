"""Garbage over a WebSocket from a runner or an agent: the link is closed with a reason, and nothing else suffers."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from server.inside import AGENT_TOKEN, Inside, Telephone
from server.test_links import agent, agent_hello, runner, wanted_container
from treadle.model.log import Line, Stream
from treadle.model.wire import (
    AGENT_PATH,
    RUNNER_PATH,
    AskImages,
    AttemptRef,
    Beat,
    Built,
    Exited,
    Finished,
    Hello,
    ImageHere,
    ImagesTold,
    Lines,
    Ready,
    Returned,
    Work,
    decode_for_agent,
    decode_for_runner,
    encode,
)

from .effort import effort
from .listening import Listening, check_error

DEEP = b"\x91" * 100_000 + b"\xc0"  # lists in one another, msgpack
UNKNOWN = b"\x91\x82\xa4type\xa7unknown\xa1x\x01"
GARBAGE = [
    b"", b"\xc1", b"\x91", encode([Beat()])[:-2], encode({"type": "beat"}), encode([1, "x", None]), encode([{"type": 5}]), UNKNOWN,
    encode([{"type": "beat", "x": 1}]).replace(b"\x01", DEEP), encode([{"type": "ready", "free": "many"}]),
    encode([{"type": "ready", "free": -1}]), encode([{"type": "ready", "free": 10**6}]),
    encode([{"type": "load_failed", "reason": "x"}]).replace(b"\xa1x", b"\xa2\xff\xfe"),
    encode([{"type": "finished", "ref": ["x"], "free": True}]), encode([{"type": "finished", "ref": ["x", 1], "ran": float("nan")}]),
    encode([{"type": "lines", "lines": [[float("nan"), 1, "x"]]}]), encode([{"type": "lines", "lines": [[1e300, 1, "x"]]}]),
    encode([{"type": "lines", "lines": [[1.0, 7, "x"]]}]), encode([{"type": "lines", "lines": [[1.0, 1, "x" * 100_000]]}]),
]  # fmt: skip


@pytest.fixture
def started(inside: Inside) -> tuple[Inside, str, str, Telephone]:
    """A server, a task that waits, its container and that one's token, and the agent that was told to start it."""
    line = agent(inside)
    inside.submitted("resize", {"x": 1})
    container_id, token = wanted_container(inside, line)
    return inside, container_id, token, line


@pytest.fixture
def inside(tmp_path: Any) -> Any:
    server = Inside(tmp_path)
    server.deploy()
    yield server
    server.close()


Started = tuple[Inside, str, str, Telephone]


def closed(line: Telephone) -> str:
    """The reason with which a link is closed for good."""
    while (event := line.hear())["type"] in ("websocket.accept", "websocket.send"):
        pass
    assert (event["type"], event["code"]) == ("websocket.close", 4003)
    assert 0 < len(event["reason"].encode()) <= 123
    return str(event["reason"])


@pytest.mark.parametrize("frame", GARBAGE[1:], ids=lambda frame: repr(frame[:30]))
@pytest.mark.parametrize("first", [True, False])
def test_a_frame_that_is_none_closes_a_runners_link(started: Started, frame: bytes, first: bool) -> None:
    """Cut off, of wrong types, unknown, nested without end, out of range, as its first words or later."""
    server, container_id, token, _ = started
    if first:
        line = Telephone(server, RUNNER_PATH, token)
        line.say(frame)
        line.hear()
    else:
        line = runner(server, container_id, token, free=0)
        line.say(frame)
    closed(line)
    assert server.request("GET", f"/v2/containers/{container_id}/logs").status_code == 200
    assert server.request("GET", "/v2/task").json()["data"][0]["status"] in ("PENDING", "RUNNING")


def test_a_reason_is_cut_to_what_a_close_frame_takes(started: Started) -> None:
    """In bytes, also where its characters take several."""
    server, container_id, token, _ = started
    line = runner(server, container_id, token, free=0)
    line.say(encode([{"type": "é" * 500}]))
    closed(line)


def test_an_agents_link_is_closed_by_garbage(inside: Inside) -> None:
    """And its own greeting, said twice, is some."""
    for frame in (b"\xc1", UNKNOWN, encode([{"type": "images_told", "ask_id": "x", "images": [{"id": "", "python": "", "packages": [], "used_at": float("inf")}]}]), agent_hello()):
        line = agent(inside)
        line.say(frame)
        closed(line)
        line.hang_up()


@pytest.mark.parametrize("result", [b"", b"{", b"nan", b"1 2", b'"\xff"', b"[" * 5000 + b"]" * 5000, b'</script>'])
def test_a_result_that_is_no_json_fails_its_task(started: Started, result: bytes) -> None:
    """It would break the answer of every list that it is in."""
    server, container_id, token, _ = started
    line = runner(server, container_id, token)
    (work,) = decode_for_runner(line.hear()["bytes"])
    assert isinstance(work, Work)
    line.say(encode([Finished(work.ref, result=result, free=True)]))
    server.until(lambda: server.request("GET", f"/v2/task/{work.ref.task_id}").json()["status"] == "FAILED")
    assert "not JSON" in server.request("GET", "/v2/task").json()["data"][0]["failure_reason"]


def test_a_runner_speaks_for_its_own_container_and_attempts_alone(started: Started) -> None:
    """Ids of others, of nothing, and of attempts that are over, change nothing."""
    server, container_id, token, _ = started
    line = runner(server, container_id, token, held=[AttemptRef("\0" * 99, 2**63 - 1)])
    (work, *_) = [m for m in decode_for_runner(line.hear()["bytes"]) if isinstance(m, Work)]
    before = server.request("GET", "/v2/task").json()
    for ref in (AttemptRef(work.ref.task_id, 2), AttemptRef(work.ref.task_id, -1), AttemptRef("no", 1), AttemptRef("", 2**63 - 1)):
        line.say(encode([Finished(ref, result=b"1"), Lines([Line(1.0, Stream.STDOUT, "x")], ref), Returned([ref]), Ready(0)]))
    line.say(encode([Lines([Line(1.0, Stream.STDOUT, "last")])]))
    logs = f"/v2/containers/{container_id}/logs"
    server.until(lambda: [entry["text"] for entry in server.request("GET", logs).json()["data"]] == ["last"])
    assert server.request("GET", "/v2/task").json() == before


def test_an_agent_speaks_for_its_own_containers_and_questions_alone(started: Started) -> None:
    """Another's container does not end by its word, and what another was asked it does not answer."""
    server, container_id, _, first = started
    asked = server.wait_later("GET", "/v2/images")
    question = heard_question(first)
    other = Telephone(server, AGENT_PATH, AGENT_TOKEN)
    other.say(agent_hello().replace(b"\xa2a1", b"\xa2a2"))
    lie = ImageHere("lie", "3", ())
    other.say(encode([Exited(container_id, "gone", failed=True), ImagesTold(question.ask_id, [lie]), Built("x", error="x")]))
    other.say_text("and that is all")
    closed(other)
    first.say(encode([ImagesTold(question.ask_id, [])]))
    assert asked.result(20).json() == []
    assert server.request("GET", f"/v2/containers/{container_id}").json()["status"] == "STARTING"


def heard_question(line: Telephone) -> AskImages:
    """The next one that the server asks an agent."""
    while True:
        for message in decode_for_agent(line.hear().get("bytes") or b"\x90"):
            if isinstance(message, AskImages):
                return message


FIELDS = ["type", "free", "ref", "lines", "refs", "result", "raised", "died", "ran", "reason"]
TYPES = ["finished", "ready", "lines", "returned", "load_failed", "beat"]
ODD: list[Any] = [{"status": -99, "peak": 2**63, "limit": -1}, {"type": "", "message": "", "traceback": ""}, ["x", 1], None]
values = st.one_of(
    st.sampled_from(TYPES), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=5),
    st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=3), st.sampled_from(ODD),
)  # fmt: skip
messages_ = st.lists(st.dictionaries(st.sampled_from(FIELDS), values, max_size=6), max_size=3)


@effort(80)
@given(messages=messages_, cut=st.integers(0, 3))
def test_no_frame_makes_the_server_fail(server: Listening, messages: list[dict[str, Any]], cut: int) -> None:
    """Whatever a runner says, the link lives on or is closed, and the server is there for the next one."""
    if not any(wanted.containers for wanted in server.wanted):
        server.submitted("resize", {"x": 1})
        server.until(lambda: any(wanted.containers for wanted in server.wanted))
    spec = server.wanted[-1].containers
    if not spec:
        return
    line = Telephone(server, RUNNER_PATH, spec[-1].token)
    line.say(encode([Hello(spec[-1].container_id, [], 1)]))
    frame = encode(messages)
    line.say(frame[: len(frame) - cut] if cut else frame)
    line.hang_up()
    server.lines.remove(line)
    assert server.request("GET", "/v2/task").status_code == 200
    assert server.request("GET", "/v2/containers").status_code == 200


def test_a_socket_is_refused_with_an_answer(server: Listening) -> None:
    """To its handshake, in the one shape; a runner without a known token gets 401, any other path 404."""
    for path, status in ((RUNNER_PATH, 401), (AGENT_PATH, 401), ("/link/other", 404)):
        with pytest.raises(InvalidStatus) as refused, connect(f"ws{server.url[4:]}{path}", proxy=None):
            pass
        assert refused.value.response.status_code == status
        check_error(status, json.loads(refused.value.response.body or b"{}"))


def test_frames_have_a_limit(server: Listening) -> None:
    """One that says it is larger than 64 MiB is not waited for: 1009. Text, and what is no frame at all, ends a link too."""
    head = {"Authorization": f"Bearer {AGENT_TOKEN}"}
    for said, code in ((b"\x82\xff" + struct.pack("!Q", 2**40) + b"mask", 1009), (b"\x8f\xff\xff", 1002), (b"\xff" * 50, 1002)):
        with connect(f"ws{server.url[4:]}{AGENT_PATH}", additional_headers=head, proxy=None) as link:
            link.socket.sendall(said)
            with pytest.raises(ConnectionClosed):
                link.recv(20)
            assert link.close_code == code
    with connect(f"ws{server.url[4:]}{AGENT_PATH}", additional_headers=head, proxy=None) as link:
        link.send("text")
        with pytest.raises(ConnectionClosed):
            link.recv(20)
        assert link.close_code == 4003
