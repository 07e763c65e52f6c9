"""Doors: which forms of a token are understood, and what each role may do."""

from __future__ import annotations

from base64 import b64encode

import pytest

from treadle.model.container import Role, Workspace
from treadle.server.auth import Caller, bare

from .inside import Inside


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"), ("bearer abc", "abc"), ("BEARER  abc ", "abc"), ("abc", "abc"), (" abc ", "abc"),
        ("Basic abc-_", "abc-_"), (basic("user:abc"), "abc"), (basic(":abc"), "abc"), (basic("abc:"), "abc"),
        ("", ""), ("Digest abc", ""), ("Bearer", "Bearer"), ("Basic =", "="), (basic("no colon"), basic("no colon")[6:]),
    ],
)  # fmt: skip
def test_forms_of_the_header(header: str, token: str) -> None:
    """Bearer, bare, and Basic with the token as it is or as user or password."""
    assert bare(header) == token


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "{}", "Basic {}"])
def test_every_form_opens(shared: Inside, form: str) -> None:
    """The same door."""
    assert shared.request("GET", "/v2/workspace", header=form.format(shared.token)).status_code == 200
    assert shared.request("GET", "/v2/workspace", header=basic(f"x:{shared.token}")).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer unknown", "Bearer", "Digest x", "Basic !!", basic("a:b")])
def test_no_other_opens(shared: Inside, header: str) -> None:
    """One shape of refusal, with the way to a token."""
    answer = shared.request("GET", "/v2/workspace", header=header)
    assert answer.status_code == 401
    body = answer.json()
    assert body.keys() == {"error", "code", "advice", "message"}
    assert (body["code"], body["message"]) == ("unauthorized", body["error"])
    assert "credentials.toml" in body["advice"]


def test_an_inactive_token_opens_nothing(shared: Inside) -> None:
    """It is as good as unknown."""
    token = shared.add_token(Role.ADMIN, active=False)
    assert shared.request("GET", "/v2/workspace", token=token).status_code == 401


READ, SUBMIT, DEPLOY, ADMIN = Role.READ, Role.SUBMIT, Role.DEPLOY, Role.ADMIN
ROUTES = [
    ("GET", "/v2/workspace", READ),
    ("GET", "/v2/task", READ),
    ("GET", "/v2/task/00000000-0000-7000-8000-000000000000", READ),
    ("GET", "/v2/outputs/00000000-0000-7000-8000-000000000000/url", READ),
    ("POST", "/taskqueue/resize", SUBMIT),
    ("DELETE", "/v2/task/cancel", SUBMIT),
    ("POST", "/v2/images", DEPLOY),
    ("HEAD", f"/v2/sources/{'1' * 64}", DEPLOY),
    ("PUT", f"/v2/sources/{'1' * 64}", DEPLOY),
    ("POST", "/v2/deployments", DEPLOY),
    ("GET", "/v2/secrets", DEPLOY),
    ("GET", "/v2/volumes", DEPLOY),
    ("POST", "/v2/volumes", DEPLOY),
    ("GET", "/v2/volumes/nope/files", DEPLOY),
    ("GET", "/v2/volumes/nope/entry", DEPLOY),
    ("GET", "/v2/volumes/nope/file?path=a", DEPLOY),
    ("PUT", "/v2/volumes/roles/file?path=a", DEPLOY),
    ("DELETE", "/v2/volumes/nope/files?path=a", DEPLOY),
    ("POST", "/v2/volumes/nope/move", DEPLOY),
    ("DELETE", "/v2/volumes/nope", DEPLOY),
    ("GET", "/v2/workspace/signing-key", ADMIN),
    ("POST", "/v2/secrets", ADMIN),
    ("GET", "/v2/secrets/KEY", ADMIN),
    ("PATCH", "/v2/secrets/KEY", ADMIN),
    ("DELETE", "/v2/secrets/KEY", ADMIN),
    ("POST", "/v2/images/prune", ADMIN),
]


@pytest.mark.parametrize(("method", "path", "least"), ROUTES)
def test_each_role_includes_those_below_it(shared: Inside, method: str, path: str, least: Role) -> None:
    """A role too low is told which one it takes; one that is high enough gets past the door."""
    ladder = [READ, SUBMIT, DEPLOY, ADMIN]
    for role in ladder:
        answer = shared.request(method, path, token=shared.add_token(role))
        if ladder.index(role) < ladder.index(least):
            assert answer.status_code == 403
            if method != "HEAD":
                assert least.value in answer.json()["advice"]
        else:
            assert answer.status_code not in (401, 403)


@pytest.mark.parametrize("role", [Role.AGENT, Role.CONTAINER])
def test_agents_and_containers_stand_apart(role: Role) -> None:
    """Neither is on the ladder."""
    assert not any(Caller(1, role).may(other) for other in Role)


@pytest.mark.parametrize("path", [f"/v2/sources/{'1' * 64}"])
def test_sources_are_for_agents(shared: Inside, path: str) -> None:
    """Not even an admin reads them."""
    assert shared.request("GET", path).status_code == 401
    assert shared.request("GET", path, token="agent-" + "x" * 64).status_code == 404


def test_a_workspace_sees_its_own_only(server: Inside) -> None:
    """Tasks, queues and names of another one do not exist."""
    deployment = server.deploy()
    task_id = server.submitted("resize")

    def another(_now: float) -> Workspace:
        return server.store.insert_workspace(Workspace(0, "w2", "two", "sk_a", "sk_b", 0.0))

    stranger = server.add_token(Role.ADMIN, server.wait(server.bridge.run(another)))
    for method, path in (
        ("GET", f"/v2/task/{task_id}"),
        ("POST", "/taskqueue/resize"),
        ("POST", f"/taskqueue/id/{deployment.id}"),
        ("GET", f"/api/v1/task/{server.workspace.external_id}"),
    ):
        assert server.request(method, path, token=stranger).status_code == 404
    assert server.request("GET", "/v2/task", token=stranger).json()["data"] == []
    answer = server.request("DELETE", "/v2/task/cancel", token=stranger, params={"task_ids": task_id})
    assert answer.json() == {"cancelled": []}
