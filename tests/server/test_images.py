"""Images on the agents' machines: asked over their links, with the deployments that use them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec

from server.inside import AGENT_TOKEN, Inside, Telephone
from treadle.model.wire import (
    AGENT_PATH,
    AgentHello,
    AskImages,
    ImageHere,
    ImagesTold,
    PruneImages,
    ServerToAgent,
    encode,
)

decode = msgspec.msgpack.Decoder(list[ServerToAgent]).decode
HERE = ImageHere("image-1", "3.11.7", ("six",), size=300, freed=100, built_at=1.0, used_at=2.0)
LEFT = ImageHere("image-2", "3.11.7", (), size=50, freed=50)


def agent(server: Inside) -> Telephone:
    """An agent on a machine named `shelf`, connected."""
    line = Telephone(server, AGENT_PATH, AGENT_TOKEN)
    line.say(encode([AgentHello("agent-1", "shelf", 1000, 1000, [], "watchdog", [])]))
    assert line.hear()["type"] == "websocket.accept"
    return line


def question(line: Telephone) -> Any:
    """The next question about images that the agent is sent."""
    while True:
        for message in decode(line.hear()["bytes"]):
            if isinstance(message, AskImages | PruneImages):
                return message


def asked(pool: ThreadPoolExecutor, server: Inside, method: str, path: str, **also: Any) -> Future[Any]:
    return pool.submit(server.request, method, path, **also)


def test_images_are_listed_with_machine_and_users(server: Inside) -> None:
    """Active versions are named; an image that nothing uses has none."""
    server.deploy()
    line = agent(server)
    with ThreadPoolExecutor(1) as pool:
        answer = asked(pool, server, "GET", "/v2/images")
        line.say(encode([ImagesTold(question(line).ask_id, [HERE, LEFT])]))
        first, second = answer.result(20).json()
    assert first == {
        "id": "image-1", "machine": "shelf", "python": "3.11.7", "packages": ["six"], "base_image": "", "size": 300,
        "freed": 100, "created_at": first["created_at"], "last_used": first["last_used"], "used_by": ["resize v1"],
    }  # fmt: skip
    assert second["used_by"] == []


def test_an_image_of_another_workspace_is_used_but_not_by_whom(server: Inside) -> None:
    """Names of other tenants are not told; their images are kept all the same."""
    made = server.deploy()
    other = msgspec.structs.replace(made, id="d2", workspace_id=2, name="secret", image_id="image-2")
    server.wait(server.bridge.run(lambda _now: server.store.insert_deployment(other)))
    line = agent(server)
    with ThreadPoolExecutor(1) as pool:
        answer = asked(pool, server, "GET", "/v2/images")
        line.say(encode([ImagesTold(question(line).ask_id, [LEFT])]))
        assert answer.result(20).json()[0]["used_by"] == ["another workspace"]


def kept(server: Inside, line: Telephone) -> list[str]:
    """What an agent is told to keep."""
    with ThreadPoolExecutor(1) as pool:
        answer = asked(pool, server, "POST", "/v2/images/prune", json={"dry_run": True})
        prune = question(line)
        line.say(encode([ImagesTold(prune.ask_id, [LEFT])]))
        told = answer.result(20).json()
    assert (told["removed"][0]["id"], told["freed"], told["dry_run"], prune.dry_run) == ("image-2", 50, True, True)
    return list(prune.keep)


def test_pruning_keeps_images_of_active_deployments(server: Inside) -> None:
    """What was removed is told, with what the disk got back."""
    line = agent(server)
    assert kept(server, line) == []
    server.deploy()
    assert kept(server, line) == ["image-1"]


def test_pruning_keeps_the_image_of_a_draft_while_it_has_a_task(server: Inside) -> None:
    """Drafts are never taken back, so only their work counts."""
    draft, line = server.deploy(name=""), agent(server)
    assert kept(server, line) == []
    server.submitted(f"id/{draft.id}")
    assert kept(server, line) == ["image-1"]


def test_an_agent_that_cannot_look_or_goes_away_is_an_error(server: Inside) -> None:
    """Nobody waits for an answer that will not come."""
    line = agent(server)
    with ThreadPoolExecutor(1) as pool:
        answer = asked(pool, server, "GET", "/v2/images")
        line.say(encode([ImagesTold(question(line).ask_id, error="The disk is broken.")]))
        refused = answer.result(20)
        assert (refused.status_code, refused.json()["error"]) == (503, "The disk is broken.")
        answer = asked(pool, server, "GET", "/v2/images")
        question(line)
        line.hang_up()
        assert "is gone" in answer.result(20).json()["error"]
