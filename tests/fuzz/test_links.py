"""Garbage over a WebSocket from a runner or an agent: the link is closed with a reason, and nothing else suffers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import count
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from server.inside import AGENT_TOKEN, Inside, Telephone
from server.test_links import agent, agent_hello, runner, wanted_container
from treadle.engine.fleet import Gone
from treadle.model.log import Line, Stream
from treadle.model.wire import (
    AGENT_PATH,
    RUNNER_PATH,
    AgentHello,
    AgentToServer,
    AskImages,
    AttemptRef,
    Beat,
    Built,
    ContainerSpec,
    Exited,
    Finished,
    Hello,
    ImageHere,
    ImagesTold,
    Lines,
    Ready,
    Returned,
    RunnerToServer,
    Work,
    decode_for_agent,
    decode_for_runner,
    decode_from_agent,
    decode_from_runner,
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


@pytest.mark.parametrize("frame", GARBAGE, ids=lambda frame: repr(frame[:30]))
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


ODD: list[Any] = [{"status": -99, "peak": 2**63, "limit": -1}, {"type": "", "message": "", "traceback": ""}, ["x", 1], None, {}, []]
odd = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.booleans(),
    st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=3), st.sampled_from(ODD),
)  # fmt: skip
numbers = count()


@effort(80)
@given(data=st.data(), cut=st.sampled_from([0, 0, 0, 1, 3]))
def test_no_frame_makes_the_server_fail(server: Listening, data: st.DataObject, cut: int) -> None:
    """Whatever a runner says, the link lives on or is closed, and the server is there for the next one."""
    said = data.draw(messages(RunnerToServer, decode_from_runner))
    made = server.deploy(f"q{next(numbers)}")
    server.submitted(made.name, {"x": 1})
    server.until(lambda: container_of(server, made.id))
    spec = container_of(server, made.id)
    assert spec is not None
    line = Telephone(server, RUNNER_PATH, spec.token)
    line.say(encode([Hello(spec.container_id, [], 1)]))
    assert line.hear() == {"type": "websocket.accept"}
    say(line, said, cut)
    check_well(server)
    assert server.request("DELETE", f"/v2/deployments/{made.id}").status_code == 200
    server.ask(server.engine.fleet.gone, Gone(spec.container_id, "over"))  # it makes room for the next one


@effort(60)
@given(data=st.data(), cut=st.sampled_from([0, 0, 0, 1, 3]))
def test_no_frame_of_an_agent_makes_the_server_fail(server: Listening, data: st.DataObject, cut: int) -> None:
    """Nor does its greeting."""
    greets, said = data.draw(st.integers(0, 3)), data.draw(messages(AgentToServer, decode_from_agent))
    line = Telephone(server, AGENT_PATH, AGENT_TOKEN)
    if greets:
        line.say(encode([AgentHello("a2", "other", 0, 0, [], "watchdog", [])]))
        assert line.hear() == {"type": "websocket.accept"}
    say(line, said, cut)
    check_well(server)


def container_of(server: Listening, deployment_id: str) -> ContainerSpec | None:
    """The newest that its agent was told to start."""
    told = (spec for wanted in reversed(server.wanted) for spec in wanted.containers)
    return next((spec for spec in told if spec.deployment_id == deployment_id), None)


def say(line: Telephone, said: list[Any], cut: int) -> None:
    frame = encode(said)
    line.say(frame[: len(frame) - cut] if cut else frame)
    line.hang_up()
    line._inside.lines.remove(line)


def check_well(server: Listening) -> None:
    for path in ("/v2/task", "/v2/containers", "/v2/images", "/v2/deployments"):
        assert server.request("GET", path).status_code == 200


@st.composite
def messages(draw: st.DrawFn, union: Any, decode: Callable[[bytes], Any]) -> list[Any]:
    """Up to three of these messages, of which one may have a field that is odd, missing or unknown."""
    kinds = st.sampled_from(get_args(union))
    said = [draw(good(msgspec.inspect.type_info(kind))) for kind in draw(st.lists(kinds, min_size=1, max_size=3))]
    for message in said:
        decode(encode(message))  # else what is drawn here is not what it says
    if draw(st.booleans()):
        victim = draw(st.sampled_from(said))
        field = draw(st.sampled_from([*victim, "other"]))
        if draw(st.booleans()):
            victim[field] = draw(odd)
        else:
            victim.pop(field, None)
    return said


def good(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - a line a type
    """Values that a field of this type may have, as msgpack has them."""
    match kind:
        case msgspec.inspect.StructType(fields=fields):
            return structs(kind, {field.encode_name: good(field.type) for field in fields})
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(good(item), max_size=3)
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(good(key), good(value), max_size=3)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*map(good, types))
        case msgspec.inspect.EnumType(cls=cls):
            return st.sampled_from([member.value for member in cls])
        case msgspec.inspect.IntType(ge=least, le=most):
            return st.integers(-(2**63) if least is None else least, 2**63 - 1 if most is None else most)
        case msgspec.inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False)
        case msgspec.inspect.StrType():
            return st.text(max_size=20)
        case msgspec.inspect.BytesType():
            return st.binary(max_size=20)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
    raise NotImplementedError(kind)


def structs(kind: msgspec.inspect.StructType, fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if kind.array_like:
        return st.tuples(*fields.values()).map(list)
    needed = {field.encode_name for field in kind.fields if field.required}
    tag = {kind.tag_field: st.just(kind.tag)} if kind.tag_field else {}
    optional = {name: field for name, field in fields.items() if name not in needed}
    return st.fixed_dictionaries(tag | {name: fields[name] for name in needed}, optional=optional)


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
