"""Links: who is let in, what must be said first, and what closes them."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import pytest

from treadle.engine.fleet import Gone
from treadle.model.container import Container, Isolation
from treadle.model.errors import NoSpace
from treadle.model.task import TaskStatus
from treadle.model.wire import (
    AGENT_PATH,
    RUNNER_PATH,
    AgentHello,
    AttemptRef,
    Beat,
    Exited,
    Finished,
    Hello,
    Ready,
    Settled,
    Wanted,
    Work,
    decode_for_agent,
    decode_for_runner,
    encode,
)
from treadle.server import tasks

from .inside import AGENT_TOKEN, Inside, Telephone


def agent_hello(isolation: Isolation = Isolation.PROCESS) -> bytes:
    return encode([AgentHello("a1", "host", 8000, 8192, [], "watchdog", [], isolation=isolation)])


def agent(server: Inside, isolation: Isolation = Isolation.PROCESS) -> Telephone:
    """A connected agent that was told what to run."""
    line = Telephone(server, AGENT_PATH, AGENT_TOKEN)
    line.say(agent_hello(isolation))
    assert line.hear() == {"type": "websocket.accept"}
    return line


def wanted(line: Telephone) -> Wanted:
    *_, message = decode_for_agent(line.hear()["bytes"])  # two commits may share a frame; the newest says all
    assert isinstance(message, Wanted)
    return message


def wanted_container(server: Inside, line: Telephone) -> tuple[str, str]:
    """The id and the token of the first container that the agent is told to start."""
    while not (told := wanted(line)).containers:
        pass
    return told.containers[0].container_id, told.containers[0].token


def runner(server: Inside, container_id: str, token: str, *, free: int = 1, held: list[AttemptRef] | None = None) -> Telephone:
    line = Telephone(server, RUNNER_PATH, token)
    line.say(encode([Hello(container_id, held or [], free)]))
    assert line.hear() == {"type": "websocket.accept"}
    return line


@pytest.fixture
def started(server: Inside) -> tuple[Inside, str, str, str]:
    """A server, a task that waits, and a container with its token for it."""
    server.deploy()
    line = agent(server)
    task_id = server.submitted("resize", {"x": 1})
    return server, task_id, *wanted_container(server, line)


Started = tuple[Inside, str, str, str]


@pytest.mark.parametrize("path", [RUNNER_PATH, AGENT_PATH])
@pytest.mark.parametrize("token", ["", "unknown"])
def test_a_token_opens_a_link(shared: Inside, path: str, token: str) -> None:
    """Without one it is closed before it begins, for good."""
    line = Telephone(shared, path, token)
    assert line.hear() == {"type": "websocket.close", "code": 4003}


def test_an_admins_token_opens_no_link(shared: Inside) -> None:
    """Links are for those who run tasks."""
    for path in (RUNNER_PATH, AGENT_PATH):
        assert Telephone(shared, path, shared.token).hear()["type"] == "websocket.close"


def test_there_are_two_links(shared: Inside) -> None:
    """Nothing else is one."""
    assert Telephone(shared, "/link/other", shared.token).hear() == {"type": "websocket.close", "code": 4004}


def test_a_task_goes_its_way_over_a_link(started: Started) -> None:
    """Work as soon as a child is free, the result on disk, the report settled, the next task at once."""
    server, task_id, container_id, token = started
    line = runner(server, container_id, token)
    (work,) = decode_for_runner(line.hear()["bytes"])
    assert isinstance(work, Work)
    assert (work.ref, work.payload) == (AttemptRef(task_id, 1), b'{"args":[],"kwargs":{"x":1}}')
    following = server.submitted("resize")
    line.say(encode([Beat(), Finished(work.ref, result=b"2", free=True)]))
    told = decode_for_runner(line.hear()["bytes"])
    assert told[0] == Settled([work.ref])
    assert isinstance(told[1], Work)
    assert told[1].ref == AttemptRef(following, 1)
    assert server.request("GET", f"/v2/task/{task_id}").json()["result"] == 2


@pytest.mark.parametrize(
    "first",
    [encode([]), encode([Beat()]), encode([Hello("another", [], 1)]), encode([Hello("mine", [], 1, protocol=99)]), b"\xc1"],
)
def test_a_runner_says_hello_first(started: Started, first: bytes) -> None:
    """Its own, in our protocol; else it is refused with the reason."""
    server, _, container_id, token = started
    line = Telephone(server, RUNNER_PATH, token)
    line.say(first.replace(b"\xa4mine", bytes([0xD9, len(container_id)]) + container_id.encode()))
    assert line.hear() == {"type": "websocket.accept"}
    closed = line.hear()
    assert (closed["type"], closed["code"]) == ("websocket.close", 4003)
    assert closed["reason"]


@pytest.mark.parametrize("first", [encode([]), encode([Beat()]), b"\x00"])
def test_an_agent_says_hello_first(shared: Inside, first: bytes) -> None:
    """Anything else is refused."""
    line = Telephone(shared, AGENT_PATH, AGENT_TOKEN)
    line.say(first)
    assert [line.hear()["type"] for _ in range(2)] == ["websocket.accept", "websocket.close"]


def test_text_is_no_message(started: Started) -> None:
    """The protocol is binary."""
    server, _, container_id, token = started
    line = runner(server, container_id, token)
    line.hear()
    line.say_text("hello")
    assert line.hear()["code"] == 4003


@pytest.mark.parametrize("free", [257, 2**63, 2**64 - 1, -20_001, -(2**63)])
def test_no_runner_has_so_many_children(started: Started, free: int) -> None:
    """A number that cannot be closes the link for good, as any other frame that is not of the protocol."""
    server, _, container_id, token = started
    line = Telephone(server, RUNNER_PATH, token)
    line.say(encode([Hello(container_id, [], free)]))
    assert line.hear() == {"type": "websocket.accept"}
    assert line.hear()["code"] == 4003
    line = runner(server, container_id, token, free=0)
    line.say(encode([Ready(free)]))
    assert line.hear()["code"] == 4003


def test_hello_comes_once(started: Started) -> None:
    """A second one on the same link is refused."""
    server, _, container_id, token = started
    line = runner(server, container_id, token)
    line.hear()
    line.say(encode([Hello(container_id, [], 1)]))
    assert line.hear()["code"] == 4003


def test_a_container_that_is_over_is_let_in_no_more(started: Started) -> None:
    """Its token opens nothing: its runner ends."""
    server, _, container_id, token = started
    server.ask(server.engine.fleet.gone, Gone(container_id, "ended"))
    assert Telephone(server, RUNNER_PATH, token).hear() == {"type": "websocket.close", "code": 4003}


def test_the_end_of_a_container_is_not_lost_to_a_commit_that_fails(started: Started) -> None:
    """What an agent tells while another change ends the container counts when that change is rolled back."""
    server, _, container_id, _ = started
    fleet, line = server.engine.fleet, server.lines[0]
    entered, leave = Event(), Event()

    def ends_it_in_vain(now: float, _requests: Sequence[None]) -> Sequence[None]:
        fleet.gone(now, [Gone(container_id, "ended")])
        entered.set()
        assert leave.wait(20)
        raise NoSpace

    async def on_the_thread() -> None:
        server.engine.writer._commit_took = 1.0
        server.bridge.tell(ends_it_in_vain, None)

    server.wait(on_the_thread())
    assert entered.wait(20)
    line.say(encode([Exited(container_id, "killed by signal 9 (SIGKILL)", failed=False)]))
    line.say_text("that is all")  # which closes the link: what came before it has been read
    while line.hear().get("code") != 4003:
        pass
    leave.set()
    server.until(lambda: server.house.reader.container(container_id).ended_at)  # type: ignore[union-attr]


def test_the_newest_link_of_a_runner_counts(started: Started) -> None:
    """The one before is closed, and work goes over the new one."""
    server, task_id, container_id, token = started
    old = runner(server, container_id, token)
    old.hear()
    new = runner(server, container_id, token, free=1, held=[])
    (work,) = decode_for_runner(new.hear()["bytes"])
    assert isinstance(work, Work)
    assert work.ref == AttemptRef(task_id, 1)
    assert old.hear() == {"type": "websocket.close", "code": 1013}
    old.hang_up()
    new.say(encode([Finished(work.ref, result=b"1", free=True)]))
    assert decode_for_runner(new.hear()["bytes"]) == [Settled([work.ref])]


def test_a_report_that_could_not_be_written_closes_the_link(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner calls again and repeats it; then it counts."""
    server, task_id, container_id, token = started
    line = runner(server, container_id, token, free=1)
    (work,) = decode_for_runner(line.hear()["bytes"])
    assert isinstance(work, Work)
    commit = server.store.commit

    def full(changes: object) -> object:
        monkeypatch.setattr(server.store, "commit", commit)
        raise OSError("no space left on device")

    monkeypatch.setattr(server.store, "commit", full)
    report = Finished(work.ref, result=b"1")
    line.say(encode([report]))
    assert line.hear() == {"type": "websocket.close", "code": 1013}
    line.hang_up()
    again = runner(server, container_id, token, free=1, held=[work.ref])
    again.say(encode([report]))
    assert decode_for_runner(again.hear()["bytes"]) == [Settled([work.ref])]
    task = server.store.reader().task(task_id)
    assert task is not None
    assert task.status is TaskStatus.COMPLETE


def test_a_full_disk_sends_nobody_away_for_good(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner whose call cannot be written down is told to call again (1013), not that it is unwanted (4003)."""
    server, _, container_id, token = started

    def full() -> None:
        raise NoSpace

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "transaction", full)
        line = runner(server, container_id, token)
        assert line.hear() == {"type": "websocket.close", "code": 1013}
    assert isinstance(decode_for_runner(runner(server, container_id, token).hear()["bytes"])[0], Work)


def test_a_closed_link_gets_no_work(started: Started) -> None:
    """A task that comes meanwhile waits for the next call."""
    server, task_id, container_id, token = started
    line = runner(server, container_id, token, free=0)
    line.say(encode([Ready(0)]))
    line.hang_up()
    again = runner(server, container_id, token)
    (work,) = decode_for_runner(again.hear()["bytes"])
    assert isinstance(work, Work)
    assert work.ref == AttemptRef(task_id, 1)
    assert isinstance(server.store.reader().container(container_id), Container)


def test_an_agent_that_calls_twice_is_there_once(server: Inside) -> None:
    """The old link is closed; containers are asked of the new one."""
    server.deploy()
    old = agent(server)
    wanted(old)
    new = agent(server)
    wanted(new)
    assert old.hear() == {"type": "websocket.close", "code": 1013}
    old.hang_up()
    server.submitted("resize")
    assert wanted_container(server, new)[1]


def test_a_page_of_tasks_ends_where_it_would_fill_the_memory(server: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rest behind `next`: whoever follows it misses none, and a result of any size comes on some page."""
    server.deploy()
    line = agent(server)
    ids = [server.submitted("resize") for _ in range(4)]
    link, left = runner(server, *wanted_container(server, line)), len(ids)
    while left:
        for work in decode_for_runner(link.hear()["bytes"]):
            if isinstance(work, Work):
                link.say(encode([Finished(work.ref, result=b'"%s"' % (b"x" * 30_000), free=True)]))
                left -= 1
    server.until(lambda: all(server.request("GET", f"/v2/task/{one}/result").json()["status"] == "COMPLETE" for one in ids))
    monkeypatch.setattr(tasks, "MAX_PAGE", 50_000)
    pages, cursor, more = [], "", True
    while more:
        page = server.request("GET", "/v2/task", params={"limit": 3, "cursor": cursor}).json()
        pages.append([task["id"] for task in page["data"]])
        cursor = page["next"]
        more = bool(cursor)
    assert pages == [ids[:1:-1], ids[1::-1]]
