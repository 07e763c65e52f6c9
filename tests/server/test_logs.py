"""Logs over HTTP: pages with cursors, streams of events that end with the log, and who may see them."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from treadle.model.container import Role
from treadle.model.log import Line, Stream
from treadle.model.wire import AttemptRef, Finished, Lines, Work, decode_for_runner, encode

from .inside import Inside, Telephone
from .test_links import agent, runner, wanted_container


class Talk:
    """A task that runs, and the line to the runner that runs it."""

    def __init__(self, server: Inside) -> None:
        self.server = server
        server.deploy()
        line = agent(server)
        self.task_id = server.submitted("resize", {})
        self.container_id, token = wanted_container(server, line)
        self.line: Telephone = runner(server, self.container_id, token)
        (work,) = decode_for_runner(self.line.hear()["bytes"])
        assert isinstance(work, Work)
        self.ref = work.ref

    def lines(self, *texts: str, ref: AttemptRef | None = None, stream: Stream = Stream.STDOUT) -> Lines:
        return Lines([Line(1_770_000_000.25, stream, text) for text in texts], ref)

    def print(self, *texts: str) -> None:
        """Have the task print, and wait until it is kept."""
        before = len(self.page()["data"])
        self.line.say(encode([self.lines(*texts, ref=self.ref)]))
        self.server.until(lambda: len(self.page()["data"]) > before)

    def end(self, *last: str) -> None:
        self.line.say(encode([self.lines(*last, ref=self.ref), Finished(self.ref, result=b"1", free=True)]))
        self.line.hear()

    def page(self, **query: Any) -> dict[str, Any]:
        answer = self.server.request("GET", f"/v2/task/{self.task_id}/logs", params=query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def stream(self, path: str, **headers: str) -> list[tuple[str, str, dict[str, Any]]]:
        """The events of a stream to its end: kind, id and data."""
        return events(self.server.wait(self._stream(path, headers)))

    async def _stream(self, path: str, headers: dict[str, str]) -> httpx2.Response:
        known = {"authorization": f"Bearer {self.server.token}", "accept": "text/event-stream"}
        return await self.server._client.get(path, headers=known | headers)


def events(answer: httpx2.Response) -> list[tuple[str, str, dict[str, Any]]]:
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    found = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return found


@pytest.fixture
def talk(server: Inside) -> Talk:
    return Talk(server)


def test_a_page_tells_each_line_with_where_it_comes_from(talk: Talk) -> None:
    """Time, stream, attempt, task and container; nothing follows once the task is final."""
    talk.end("hällo")
    (line,) = talk.page()["data"]
    assert line == {
        "at": "2026-02-02T02:40:00.250000Z", "stream": "stdout", "text": "hällo",
        "task_id": talk.task_id, "attempt": 1, "container_id": talk.container_id,
    }  # fmt: skip
    assert talk.page()["next"] == ""


def test_pages_go_on_where_the_one_before_ended(talk: Talk) -> None:
    """Also in the middle of what was sent at once, and from the end of what there is as yet."""
    talk.print("a", "b", "c")
    talk.print("d")
    first = talk.page(limit=2)
    assert [line["text"] for line in first["data"]] == ["a", "b"]
    second = talk.page(limit=10, cursor=first["next"])
    assert [line["text"] for line in second["data"]] == ["c", "d"]
    assert talk.page(cursor=second["next"])["data"] == []
    talk.end("e")
    last = talk.page(cursor=second["next"])
    assert ([line["text"] for line in last["data"]], last["next"]) == (["e"], "")


def test_a_stream_ends_with_the_log(talk: Talk) -> None:
    """What is there, what comes, and the end when the task is final, with its last lines before it."""
    talk.print("before")
    later = talk.server.wait_later("GET", f"/v2/task/{talk.task_id}/logs", accept="text/event-stream")
    talk.server.until(lambda: len(talk.server.bridge.followers))
    talk.end("the last")
    found = events(later.result(20))
    assert [(kind, data.get("text")) for kind, _, data in found] == [("line", "before"), ("line", "the last"), ("end", None)]
    assert len(talk.server.bridge.followers) == 0


def test_a_stream_goes_on_after_the_last_event_seen(talk: Talk) -> None:
    """The id of an event is the cursor of what follows it, as a header or as a parameter."""
    talk.end("a", "b", "c")
    path = f"/v2/task/{talk.task_id}/logs"
    seen = talk.stream(path)[0][1]
    assert [data.get("text") for _, _, data in talk.stream(path, **{"last-event-id": seen})] == ["b", "c", None]
    assert [data.get("text") for _, _, data in talk.stream(f"{path}?cursor={seen}")] == ["b", "c", None]


def test_a_container_tells_everything_printed_in_it(talk: Talk) -> None:
    """By its tasks and by itself; who reads on is told when there may be more."""
    talk.line.say(encode([talk.lines("own")]))
    talk.end("of the task")
    answer = talk.server.request("GET", f"/v2/containers/{talk.container_id}/logs").json()
    assert [(line["text"], line["task_id"], line["attempt"]) for line in answer["data"]] == [
        ("own", "", 0), ("of the task", talk.task_id, 1),
    ]  # fmt: skip
    assert answer["next"]


def test_containers_are_listed_with_what_runs_in_them(talk: Talk) -> None:
    """Those that are not over, or the newest of all; and one by its id."""
    (listed,) = talk.server.request("GET", "/v2/containers").json()
    assert (listed["id"], listed["status"], listed["running"]) == (talk.container_id, "RUNNING", [talk.task_id])
    assert listed["deployment"] == "resize v1"
    assert talk.server.request("GET", "/v2/containers?ended=5").json() == [listed]
    assert talk.server.request("GET", f"/v2/containers/{talk.container_id}").json() == listed


def test_a_container_is_stopped_by_who_may_deploy(talk: Talk) -> None:
    """Its runner is told, with the grace; a token that may only submit is refused."""
    path = f"/v2/containers/{talk.container_id}/stop?grace=2"
    submit = talk.server.add_token(Role.SUBMIT)
    assert talk.server.request("POST", path, token=submit).status_code == 403
    answer = talk.server.request("POST", path)
    assert (answer.status_code, answer.json()["status"]) == (200, "STOPPING")
    (stop,) = decode_for_runner(talk.line.hear()["bytes"])
    assert (stop.grace, stop.reason) == (2.0, "stopped on request")
    assert talk.server.request("POST", "/v2/containers/none/stop").status_code == 404


@pytest.mark.parametrize("path", ["/v2/task/01a2140c-b10b-79a4-a17c-3e83d0ba88b6/logs", "/v2/containers/none/logs", "/v2/containers/none"])
def test_what_is_not_there_has_no_log(shared: Inside, path: str) -> None:
    """Also for who would follow it."""
    assert shared.request("GET", path).status_code == 404


@pytest.mark.parametrize("query", ["cursor=x", "cursor=-1", "cursor=1.2.3", "limit=0", "limit=10001"])
def test_what_cannot_be_meant_is_refused(talk: Talk, query: str) -> None:
    """A cursor that is none of ours, and a limit out of range."""
    assert talk.server.request("GET", f"/v2/task/{talk.task_id}/logs?{query}").status_code == 400


def test_lines_of_another_size_close_the_link(talk: Talk) -> None:
    """What no runner of ours sends is not kept."""
    talk.line.say(encode([talk.lines("x" * 20_000, ref=talk.ref)]))
    assert talk.line.hear()["type"] == "websocket.close"
