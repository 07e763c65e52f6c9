"""The routes of secrets: who may do what, and that a value comes out where it is asked for and nowhere else."""

from __future__ import annotations

import time
from hashlib import sha256

import pytest

from treadle.model.container import Container, ContainerStatus, Role, Workspace
from treadle.model.deployment import MAX_SHOWN
from treadle.model.secret import MAX_VALUE

from .inside import Inside

VALUE = "correct horse battery staple"
BEAMS = "/secret/default"


def create(server: Inside, name: str = "KEY", value: str = VALUE, path: str = "/v2/secrets") -> None:
    answer = server.request("POST", path, json={"name": name, "value": value})
    assert answer.status_code == 201, answer.text
    assert answer.json().keys() == {"name", "created_at", "updated_at"}


@pytest.mark.parametrize("path", ["/v2/secrets", BEAMS])
def test_the_life_of_a_secret(server: Inside, path: str) -> None:
    """Made, listed, shown, changed and forgotten, on our routes and on Beam's; only `show` tells the value."""
    create(server, path=path)
    listed = server.request("GET", path)
    assert [one["name"] for one in listed.json()] == ["KEY"]
    assert VALUE not in listed.text
    assert server.request("GET", f"{path}/KEY").json()["value"] == VALUE
    changed = server.request("PATCH", f"{path}/KEY", json={"value": "new"})
    assert (changed.status_code, changed.json()["name"]) == (200, "KEY")
    assert server.request("GET", f"{path}/KEY").json()["value"] == "new"
    assert server.request("DELETE", f"{path}/KEY").status_code == 204
    assert server.request("GET", f"{path}/KEY").status_code == 404
    assert server.request("GET", path).json() == []


def test_a_name_is_taken_once(server: Inside) -> None:
    """409, with the way to change it."""
    create(server)
    again = server.request("POST", "/v2/secrets", json={"name": "KEY", "value": "x"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_one_in_use_is_deleted_only_by_force(server: Inside) -> None:
    """The refusal names the deployment."""
    create(server)
    server.deploy(secrets=("KEY",))
    refused = server.request("DELETE", "/v2/secrets/KEY")
    assert refused.status_code == 409
    assert "resize v1" in refused.json()["error"]
    assert server.request("DELETE", "/v2/secrets/KEY?force=true").status_code == 204


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "é", "A" * 256, "../KEY"])
def test_a_name_must_be_one_of_a_variable(shared: Inside, name: str) -> None:
    """And is told back in the error."""
    answer = shared.request("POST", "/v2/secrets", json={"name": name, "value": VALUE})
    assert answer.status_code == 400
    assert repr(name)[:MAX_SHOWN] in answer.json()["error"]


@pytest.mark.parametrize("value", ["", "with \0 inside", "x" * (MAX_VALUE + 1), "é" * (MAX_VALUE // 2 + 1)])
def test_a_value_must_fit_into_a_variable(shared: Inside, value: str) -> None:
    """The refusal says how long it is, never what it is."""
    answer = shared.request("POST", "/v2/secrets", json={"name": "FIT", "value": value})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_option")
    assert f"({len(value.encode())} bytes)" in answer.json()["error"]
    assert value == "" or value not in answer.text


@pytest.mark.parametrize("body", [b"", b"[]", b'{"name": "KEY"}', b'{"name": "KEY", "value": 5}', b"\xff"])
def test_a_body_of_another_form_is_refused(shared: Inside, body: bytes) -> None:
    """400, and 413 for one that is far too long."""
    assert shared.request("POST", "/v2/secrets", content=body).status_code == 400
    assert shared.request("POST", "/v2/secrets", content=b" " * 9 * MAX_VALUE).status_code == 413


def test_a_value_may_be_anything_a_variable_can_hold(server: Inside) -> None:
    """Lines, quotes, any letter, up to the limit."""
    for number, value in enumerate(["a\nb\n", "'\"$`\\", "日本", " ", "x" * MAX_VALUE]):
        create(server, f"KEY_{number}", value)
        assert server.request("GET", f"/v2/secrets/KEY_{number}").json()["value"] == value


def test_another_workspace_has_its_own(server: Inside) -> None:
    """It neither sees nor changes nor blocks a name of ours, and cannot name our workspace."""
    create(server)

    def another(_now: float) -> Workspace:
        return server.store.insert_workspace(Workspace(0, "other-id", "other", "sk_x", "key", 0.0))

    foreign = server.add_token(Role.ADMIN, server.wait(server.bridge.run(another)))
    assert server.request("GET", "/v2/secrets", token=foreign).json() == []
    for method in ("GET", "PATCH", "DELETE"):
        answer = server.request(method, "/v2/secrets/KEY", token=foreign, **({"json": {"value": "x"}} if method == "PATCH" else {}))
        assert answer.status_code == 404
    assert server.request("GET", BEAMS, token=foreign).status_code == 404
    mine = server.request("POST", "/v2/secrets", token=foreign, json={"name": "KEY", "value": "theirs"})
    assert mine.status_code == 201
    assert server.request("GET", "/v2/secrets/KEY").json()["value"] == VALUE


def test_a_container_reads_no_secret_and_borrows_none(server: Inside) -> None:
    """Its token opens none of the routes, and no draft with a secret that its own deployment has not."""
    create(server)
    create(server, "OTHER")
    deployment = server.deploy(secrets=("KEY",))
    token = "container-" + "x" * 64
    row = Container(
        "taskqueue-c", server.workspace.id, deployment.id, "a", ContainerStatus.RUNNING,
        sha256(token.encode()).hexdigest(), time.time(), time.time() + 60,
    )  # fmt: skip
    server.wait(server.bridge.run(lambda _now: server.store.insert_container(row)))
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/KEY"), ("PATCH", "/KEY"), ("DELETE", "/KEY")):
        assert server.request(method, f"/v2/secrets{path}", token=token).status_code == 403

    def draft(*names: str) -> int:
        config = {"handler": "app:handler", "secrets": names}
        body = {"name": "", "config": config}
        return server.request("POST", "/v2/deployments", token=token, json=body).status_code

    assert (draft("KEY"), draft("OTHER"), draft("KEY", "OTHER"), draft()) == (200, 403, 403, 200)
