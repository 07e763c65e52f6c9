"""Serving over HTTP: started, replaced, followed, ended, and ended for those who go away without a word."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from treadle.model.container import Role
from treadle.model.deployment import QueueConfig
from treadle.model.log import Line, Stream
from treadle.model.wire import Finished, Lines, Work, decode_for_runner, encode
from treadle.server import sessions

from .inside import IMAGE, SOURCE, Inside
from .test_links import agent, runner, wanted_container
from .test_logs import events


def asked(inside: Inside, **fields: Any) -> dict[str, Any]:
    inside.deploy("for its source")
    config = QueueConfig(**{"handler": "app:handler", **fields})
    return {"config": json.loads(msgspec.json.encode(config)), "source_id": SOURCE, "image_id": IMAGE.id}


def served(inside: Inside, **fields: Any) -> dict[str, Any]:
    answer = inside.request("POST", "/v2/serve", json=asked(inside, **fields))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def is_served(inside: Inside, deployment_id: str) -> bool:
    return deployment_id in [found.id for found in inside.house.reader.served()]


def test_it_is_followed_from_the_first_container_to_the_end(server: Inside) -> None:
    """Ready, lines, the end of a task, the end of serving; the URL stays the same when it is replaced."""
    line = agent(server)
    first = served(server)
    deployment_id = first["deployment_id"]
    assert first["invoke_url"] == f"http://treadle/taskqueue/id/{deployment_id}"
    container_id, token = wanted_container(server, line)
    following = server.wait_later("GET", f"/v2/serve/{deployment_id}/logs", accept="text/event-stream")
    server.until(lambda: len(server.bridge.followers))
    on = runner(server, container_id, token)
    server.until(lambda: server.house.reader.containers(1)[0].status == "RUNNING")
    task_id = server.submitted(f"id/{deployment_id}", {})
    (work,) = decode_for_runner(on.hear()["bytes"])
    assert isinstance(work, Work)
    lines = Lines([Line(1.0, Stream.STDOUT, "hello")], work.ref)
    on.say(encode([lines, Finished(work.ref, result=b"1", free=True)]))
    on.hear()
    again = server.request("PUT", f"/v2/serve/{deployment_id}", json=asked(server, timeout=5))
    assert again.json()["invoke_url"] == first["invoke_url"]
    assert server.house.lookup.by_id(deployment_id).config.timeout == 5
    assert server.request("DELETE", f"/v2/serve/{deployment_id}").status_code == 200
    told = [(kind, data) for kind, _, data in events(following.result(20))]
    assert told[0] == ("news", {"kind": "ready", "text": container_id})
    assert (told[1][0], told[1][1]["text"], told[1][1]["task_id"]) == ("line", "hello", task_id)
    assert (told[2][0], told[2][1]["status"]) == ("task", "COMPLETE")
    assert told[-1] == ("end", {})
    assert server.enqueue(f"id/{deployment_id}", {}).status_code == 404


def test_it_ends_when_nobody_follows_any_more(server: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that is gone may come back for a while; then it ends, as it does if none ever came."""
    monkeypatch.setattr(sessions, "LINGER", 0.05)
    deployment_id = served(server)["deployment_id"]
    following = server.wait_later("GET", f"/v2/serve/{deployment_id}/logs", accept="text/event-stream")
    server.until(lambda: len(server.bridge.followers))
    assert is_served(server, deployment_id)
    following.cancel()
    server.until(lambda: not is_served(server, deployment_id))
    monkeypatch.setattr(sessions, "PATIENCE", 0.05)
    lonely = served(server)["deployment_id"]
    server.until(lambda: not is_served(server, lonely))


def test_it_goes_on_while_one_follows(server: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for the first to come, and one of two that leaves ends nothing."""
    monkeypatch.setattr(sessions, "LINGER", 0.05)
    monkeypatch.setattr(sessions, "PATIENCE", 0.05)
    deployment_id = served(server)["deployment_id"]
    path = f"/v2/serve/{deployment_id}/logs"
    stays = server.wait_later("GET", path, accept="text/event-stream")
    leaves = server.wait_later("GET", path, accept="text/event-stream")
    server.until(lambda: server.house.sessions._followers.get(deployment_id) == 2)
    leaves.cancel()
    server.until(lambda: server.house.sessions._followers.get(deployment_id) == 1)
    lonely = served(server)["deployment_id"]
    server.until(lambda: not is_served(server, lonely))  # much later, as its timer began after
    assert is_served(server, deployment_id)
    server.request("DELETE", f"/v2/serve/{deployment_id}")
    assert events(stays.result(20))[-1][0] == "end"


def test_who_may_serve(server: Inside) -> None:
    """Whoever may deploy; a stranger's and what is not served are not found."""
    submit = server.add_token(Role.SUBMIT)
    body = asked(server)
    assert server.request("POST", "/v2/serve", json=body, token=submit).status_code == 403
    named = server.deploy("named").id
    for method, path, sent in (
        ("PUT", f"/v2/serve/{named}", body),
        ("DELETE", f"/v2/serve/{named}", None),
        ("GET", f"/v2/serve/{named}/logs", None),
    ):
        assert server.request(method, path, json=sent).status_code == 404


def test_a_definition_is_checked(server: Inside) -> None:
    """Like one that is deployed."""
    body = asked(server)
    assert server.request("POST", "/v2/serve", json={**body, "source_id": "f" * 64}).status_code == 400
    wrong = {**body, "config": {**body["config"], "retries": -1}}
    assert server.request("POST", "/v2/serve", json=wrong).status_code == 400
