"""Tokens are made for a role, and are worth nothing from the moment that they are revoked or switched off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from treadle.engine.fleet import Gone
from treadle.engine.tokens import token_hash
from treadle.model.container import Role

from .inside import SECONDS, Inside
from .test_links import agent, runner, wanted_container


def made(server: Inside, role: str = "submit", **also: Any) -> tuple[str, str]:
    """A new token: its id, and itself."""
    answer = server.request("POST", "/v2/tokens", json={"role": role, **also})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], answer.json()["token"]


def opens(server: Inside, token: str) -> bool:
    status = server.request("GET", "/v2/workspace", token=token).status_code
    assert status in (200, 401)
    return status == 200


@pytest.mark.parametrize("role", ["admin", "deploy", "submit", "read"])
def test_a_token_has_the_role_it_was_made_for(shared: Inside, role: str) -> None:
    """And is long enough that nobody guesses it."""
    token_id, token = made(shared, role, name="for a test")
    assert len(token) >= 64
    found = shared.house.reader.token(token_hash(token))
    assert found is not None
    assert (found.id, found.role, found.name) == (token_id, role, "for a test")


@pytest.mark.parametrize("body", [{}, {"role": "root"}, {"role": "agent"}, {"role": "container"}, {"token_type": "worker"}])
def test_there_are_no_other_roles(shared: Inside, body: dict[str, str]) -> None:
    """The roles of agents and containers are not to be had."""
    answer = shared.request("POST", "/v2/tokens", json=body)
    assert answer.status_code == 400
    assert "Allowed: " in answer.json()["advice"]


@pytest.mark.parametrize("name", ["x" * 65, "a\nb", "\x1b[2J", "\u202e"])
def test_a_name_is_one_short_printable_line(shared: Inside, name: str) -> None:
    """It is shown on terminals."""
    assert shared.request("POST", "/v2/tokens", json={"role": "read", "name": name}).status_code == 400


def test_lists_do_not_have_what_opens_doors(server: Inside) -> None:
    """Neither the token nor its hash; oldest first."""
    _, token = made(server, "read", name="dashboards")
    listed = server.request("GET", "/v2/tokens")
    assert token not in listed.text and token_hash(token) not in listed.text
    names = [one["name"] for one in listed.json()]
    assert (len(names), names.count("credentials.toml"), names[-1]) == (3, 1, "dashboards")


def test_the_database_does_not_have_a_token(server: Inside) -> None:
    """Whoever reads the data folder's database gets in nowhere."""
    _, token = made(server)
    tables = server.store._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")  # type: ignore[attr-defined]
    for (table,) in tables.fetchall():
        rows = server.store._connection.execute(f'SELECT * FROM "{table}"').fetchall()  # type: ignore[attr-defined]
        assert token not in repr(rows)


def test_a_revoked_token_opens_nothing_any_more(server: Inside) -> None:
    """From the answer on, though the server has remembered it; and it stays revoked."""
    token_id, token = made(server)
    assert opens(server, token)
    gone = server.request("DELETE", f"/v2/tokens/{token_id}")
    assert (gone.status_code, gone.json()) == (200, {"ok": True})
    assert not opens(server, token)
    assert server.request("POST", f"/v2/tokens/{token_id}/toggle").status_code == 404
    assert token_id not in server.request("GET", "/v2/tokens").text


def test_a_token_is_switched_off_and_on(server: Inside) -> None:
    """At once, both ways."""
    token_id, token = made(server)
    for active in (False, True, False):
        switched = server.request("POST", f"/v2/tokens/{token_id}/toggle")
        assert switched.json()["active"] is active
        assert opens(server, token) is active


def test_beams_clients_have_the_same(server: Inside) -> None:
    """Under their own paths and kinds."""
    base = f"/api/v1/token/{server.workspace.external_id}"
    both = {kind: server.request("POST", base, json={"token_type": kind}).json() for kind in ("workspace", "workspace_restricted")}
    assert {kind: (one["role"], one["token_type"]) for kind, one in both.items()} == {
        "workspace": ("admin", "workspace"), "workspace_restricted": ("submit", "workspace_restricted"),
    }  # fmt: skip
    token = both["workspace_restricted"]
    listed = server.request("GET", base).json()
    assert token["external_id"] in [one["external_id"] for one in listed]
    assert server.request("POST", f"{base}/{token['external_id']}/toggle").json()["active"] is False
    assert server.request("DELETE", f"{base}/{token['external_id']}").json() == {"ok": True}
    assert not opens(server, token["token"])


def test_the_last_admin_token_stays(server: Inside) -> None:
    """Else nobody could make tokens any more; those of lower roles and those switched off do not count."""
    mine = server.house.reader.token(token_hash(server.token))
    assert mine is not None
    made(server, "deploy")
    off, _ = made(server, "admin")
    server.request("POST", f"/v2/tokens/{off}/toggle")
    for other in server.house.reader.tokens(server.workspace.id):
        if other.role is Role.ADMIN and other.active and other.id != mine.id:
            assert server.request("DELETE", f"/v2/tokens/{other.id}").status_code == 200
    for method, path in (("DELETE", f"/v2/tokens/{mine.id}"), ("POST", f"/v2/tokens/{mine.id}/toggle")):
        refused = server.request(method, path)
        assert refused.status_code == 409
        assert "last active admin token" in refused.json()["error"]
    assert opens(server, server.token)


# what a token has begun when it is revoked


class Slow:
    """A request whose body the test sends piece by piece."""

    def __init__(self, server: Inside, method: str, path: str, token: str) -> None:
        self._server = server
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._asked = asyncio.Event()
        headers = {"authorization": f"Bearer {token}"}
        work = server._client.request(method, path, headers=headers, content=self._body())
        self._answer = asyncio.run_coroutine_threadsafe(work, server.loop)
        server.wait(asyncio.wait_for(self._asked.wait(), SECONDS))  # it is let in: the route reads the body

    async def _body(self) -> AsyncIterator[bytes]:
        self._asked.set()
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def end(self, *pieces: bytes) -> int:
        for piece in (*pieces, None):
            self._server.loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        return self._answer.result(SECONDS).status_code


@pytest.mark.parametrize("end", ["revoke", "toggle"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/taskqueue/resize", b"{}"),
        ("POST", "/v2/secrets", b'{"name": "LATE", "value": "x"}'),
        ("PUT", "/v2/volumes/late/file?path=a", b"x"),
        ("POST", "/v2/tokens", b'{"role": "admin"}'),
    ],
)
def test_a_body_that_was_begun_changes_nothing(server: Inside, method: str, path: str, body: bytes, end: str) -> None:
    """Whoever keeps requests half sent for later has nothing of it."""
    server.deploy()
    token_id, token = made(server, "admin")
    slow = Slow(server, method, path, token)
    if end == "revoke":
        server.request("DELETE", f"/v2/tokens/{token_id}")
    else:
        server.request("POST", f"/v2/tokens/{token_id}/toggle")
    before = _everything(server)
    assert slow.end(body[:1], body[1:]) == 401
    assert _everything(server) == before


def _everything(server: Inside) -> dict[str, str]:
    paths = ("/v2/task", "/v2/secrets", "/v2/tokens", "/v2/volumes", "/v2/volumes/late/files")
    return {path: server.request("GET", path).text for path in paths}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/taskqueue/resize", b"{}"),
        ("POST", "/taskqueue/resize/batch", b"[{}]"),
        ("POST", "/v2/deployments", b'{"name": "", "config": {"handler": "app:other"}}'),
        ("PUT", "/v2/outputs?task_id={}&attempt=1&name=late", b"x"),
    ],
)
def test_a_body_that_a_container_has_begun_changes_nothing_after_its_end(server: Inside, method: str, path: str, body: bytes) -> None:
    """Its token ends with it, also for what is half sent."""
    task_id, container_id, token = _working(server)
    slow = Slow(server, method, path.format(task_id), token)
    server.ask(server.engine.fleet.gone, Gone(container_id, "over"))
    assert slow.end(body[:1], body[1:]) == 401
    counts = [server.store._connection.execute(f"SELECT COUNT(*) FROM {table}").fetchall() for table in ("task", "deployment", "output")]  # type: ignore[attr-defined]
    assert counts == [[(1,)], [(1,)], [(0,)]]


def _working(server: Inside) -> tuple[str, str, str]:
    """A task, the container that runs it, and that one's token."""
    server.deploy()
    line = agent(server)
    task_id = server.submitted("resize")
    container_id, token = wanted_container(server, line)
    runner(server, container_id, token).hear()
    return task_id, container_id, token


@pytest.mark.parametrize("of", ["user", "container"])
@pytest.mark.parametrize("path", ["/v2/task/{}?wait=60", "/v2/task/{}/result?wait=60"])
def test_a_long_poll_is_answered_with_401(server: Inside, path: str, of: str) -> None:
    """It does not tell the result that it waited for."""
    _, container_id, inner = _working(server)
    task_id = server.submitted("resize")
    token_id, outer = made(server, "read")
    token = inner if of == "container" else outer
    asked = server.wait_later("GET", path.format(task_id), authorization=f"Bearer {token}")
    server.until(lambda: server.bridge.awaited(task_id))
    if of == "container":
        server.ask(server.engine.fleet.gone, Gone(container_id, "over"))
    else:
        server.request("DELETE", f"/v2/tokens/{token_id}")
    server.request("DELETE", "/v2/task/cancel", params={"task_ids": task_id})
    assert asked.result(SECONDS).status_code == 401


def test_a_log_that_is_followed_is_cut_off(server: Inside, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of what is printed afterwards is told."""
    server.deploy()
    task_id = server.submitted("resize")
    token_id, token = made(server, "read")
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
    asked = server.wait_later("GET", f"/v2/task/{task_id}/logs", **headers)
    server.until(lambda: len(server.bridge.followers))
    server.request("DELETE", f"/v2/tokens/{token_id}")
    server.request("DELETE", "/v2/task/cancel", params={"task_ids": task_id})  # the follower is told the end
    assert "event: end" not in asked.result(SECONDS).text
    server.until(lambda: not len(server.bridge.followers))
    assert "cut off" in capsys.readouterr().out
