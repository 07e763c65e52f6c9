"""What the token of a container is good for where it opens a door (which ones: doors.py)."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import msgspec
import pytest

from treadle.engine.fleet import Gone
from treadle.model.api import DeployRequest
from treadle.model.container import Isolation
from treadle.model.deployment import ImageSpec, QueueConfig
from treadle.model.log import Line, Stream
from treadle.model.wire import Beat, Finished, Lines, Ready, Settled, Work, decode_for_runner, encode

from .inside import IMAGE, SOURCE, Inside, Telephone
from .test_links import agent, runner, wanted_container


@pytest.fixture(scope="module")
def inside(shared: Inside) -> tuple[Inside, str, str]:
    """A server, the token of a container that works there, and the id of the task that runs in it."""
    shared.deploy()
    line = agent(shared)
    task_id = shared.submitted("resize", {"x": 1})
    container_id, token = wanted_container(shared, line)
    runner(shared, container_id, token).hear()
    return shared, token, task_id


@pytest.mark.parametrize(("path", "body"), [("resize", {}), ("resize/batch", [{}])])
def test_tasks_may_be_submitted(inside: tuple[Inside, str, str], path: str, body: object) -> None:
    """One or many, to a queue of the workspace."""
    server, token, _ = inside
    assert server.enqueue(path, body, token=token).status_code == 200


def test_a_result_may_be_read(inside: tuple[Inside, str, str]) -> None:
    """Of a task whose id it knows."""
    server, token, task_id = inside
    assert server.request("GET", f"/v2/task/{task_id}/result", token=token).status_code == 200


def test_it_saves_outputs_of_its_own_attempts_only(inside: tuple[Inside, str, str]) -> None:
    """Not those of another task, nor of another attempt."""
    server, token, task_id = inside
    waiting = server.submitted("resize")

    def save(task: str, attempt: int) -> int:
        query = {"task_id": task, "attempt": attempt, "name": "file"}
        return server.request("PUT", "/v2/outputs", token=token, params=query, content=b"x").status_code

    assert (save(task_id, 1), save(task_id, 2), save(waiting, 1)) == (201, 409, 409)


def _asks(server: Inside, token: str, request: DeployRequest) -> httpx2.Response:
    return server.request("POST", "/v2/deployments", token=token, content=msgspec.json.encode(request))


def _draft(server: Inside, token: str, **fields: Any) -> httpx2.Response:
    return _asks(server, token, DeployRequest("", QueueConfig(**{"handler": "app:other", **fields})))


def test_it_makes_drafts_but_no_names(inside: tuple[Inside, str, str]) -> None:
    """A name would be served to others."""
    server, token, _ = inside
    assert _draft(server, token).status_code == 200
    assert _asks(server, token, DeployRequest("mine", QueueConfig(handler="a:f"))).status_code == 403


def test_its_drafts_are_of_its_own_source(inside: tuple[Inside, str, str]) -> None:
    """Another one would be code that nobody deployed."""
    server, token, _ = inside
    made = _draft(server, token).json()
    assert (made["source_id"], made["image_id"]) == (SOURCE, IMAGE.id)
    refused = _asks(server, token, DeployRequest("", QueueConfig(handler="a:f"), "1" * 64, IMAGE.id))
    assert refused.status_code == 403
    assert "its own source" in refused.json()["error"]


def test_it_uses_images_that_exist_and_has_none_built(inside: tuple[Inside, str, str]) -> None:
    """The commands of a build run outside of every container."""
    server, token, _ = inside
    refused = _draft(server, token, image=ImageSpec(commands=("cat /etc/shadow",)))
    assert refused.status_code == 403
    assert "runs outside of it" in refused.json()["error"]


def test_its_own_image_is_known_without_the_context_of_its_dockerfile(server: Inside) -> None:
    """That is an upload whose id only the deployer knew."""
    copied = ImageSpec(dockerfile="FROM x\nCOPY . .", context_id=SOURCE)
    server.deploy(image=copied)
    line = agent(server)
    server.submitted("resize")
    _, token = wanted_container(server, line)
    assert _draft(server, token, image=ImageSpec(dockerfile=copied.dockerfile)).json()["image_id"] == IMAGE.id


def test_a_draft_is_at_least_as_closed_as_its_maker(server: Inside) -> None:
    """Else a container without a network would make itself one that has it. One that exists may be used."""
    server.deploy("closed", block_network=True, min_isolation=2)
    line = agent(server, Isolation.NAMESPACES)
    server.submitted("closed")
    container_id, token = wanted_container(server, line)
    runner(server, container_id, token).hear()
    assert _draft(server, token, block_network=True, min_isolation=2).status_code == 200
    assert _draft(server, token, block_network=True, min_isolation=3).status_code == 200
    refused = _draft(server, token, min_isolation=1)
    assert refused.status_code == 403
    assert "what it has not itself: a network, min_isolation=1" in refused.json()["error"]
    config = QueueConfig(handler="app:other", min_isolation=1)
    assert _asks(server, server.token, DeployRequest("", config, SOURCE, IMAGE.id)).status_code == 200
    assert _draft(server, token, min_isolation=1).status_code == 200


def test_what_it_has_not_is_told_by_its_beginning(inside: tuple[Inside, str, str]) -> None:
    """However much it asks for."""
    server, token, _ = inside
    names = [f"K{number}" for number in range(15)]
    for name in names:
        server.request("POST", "/v2/secrets", json={"name": name, "value": "x"})
    asked = {"name": "", "config": {"handler": "app:other", "secrets": names}}
    refused = server.request("POST", "/v2/deployments", token=token, json=asked)
    assert refused.status_code == 403
    assert "secret K0, secret K1, " in refused.json()["error"]
    assert "secret K9 and 5 more." in refused.json()["error"]


def test_a_token_is_worth_nothing_when_its_container_is_over(server: Inside) -> None:
    """From the moment that its end is known."""
    server.deploy()
    line = agent(server)
    server.submitted("resize")
    container_id, token = wanted_container(server, line)
    assert server.enqueue("resize", token=token).status_code == 200
    server.ask(server.engine.fleet.gone, Gone(container_id, "over"))
    assert server.enqueue("resize", token=token).status_code == 401


def _told(link: Telephone) -> list[Any]:
    """What the server says up to the answer to a result."""
    told: list[Any] = []
    while not any(isinstance(message, Settled) for message in told):
        told += decode_for_runner(link.hear()["bytes"])
    return told


def test_what_an_open_link_says_after_the_end_does_not_count(server: Inside) -> None:
    """Whoever holds on to the link of a container that is over writes nothing: no result, no log, no sign of life."""
    server.deploy()
    line = agent(server)
    task_id = server.submitted("resize")
    container_id, token = wanted_container(server, line)
    link = runner(server, container_id, token)
    (work,) = decode_for_runner(link.hear()["bytes"])
    assert isinstance(work, Work)
    server.ask(server.engine.fleet.gone, Gone(container_id, "over"))
    before = [server.request("GET", f"/v2/{path}").json() for path in (f"task/{task_id}", f"containers/{container_id}")]
    late = [Line(time.time(), Stream.STDOUT, "late")]
    link.say(encode([Beat(), Lines(late, work.ref), Lines(late), Finished(work.ref, result=b"1", free=True), Ready(1)]))
    assert Settled([work.ref]) in _told(link)  # it need not say it again
    after = [server.request("GET", f"/v2/{path}").json() for path in (f"task/{task_id}", f"containers/{container_id}")]
    assert [{key: one[key] for key in ("status", "updated_at") if key in one} for one in after] == [
        {key: one[key] for key in ("status", "updated_at") if key in one} for one in before
    ]
    for path in (f"task/{task_id}/logs", f"containers/{container_id}/logs"):
        assert "late" not in [said["text"] for said in server.request("GET", f"/v2/{path}").json()["data"]]
