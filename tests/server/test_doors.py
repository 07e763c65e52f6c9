"""Nobody gets through a door who does not belong there: every route of the running application, every kind of stranger."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import msgspec
import pytest
from litestar.routes import HTTPRoute

from treadle.engine.catalog import Deploy, NewSource
from treadle.engine.fleet import Gone
from treadle.engine.outputs import SaveOutput
from treadle.engine.secrets import KeepSecret
from treadle.model.api import ServeRequest
from treadle.model.container import Role, Workspace
from treadle.model.deployment import QueueConfig
from treadle.server import app, auth, builds, cork, hot, lane, links, patience, results, sockets

from .doors import AGENTS, DOORS, LINKS, OPEN, RUNNERS, VERSIONS, Door
from .inside import AGENT_TOKEN, IMAGE, SOURCE, Inside, Telephone
from .test_lane import Wire
from .test_links import agent, runner, wanted, wanted_container

ZERO = "00000000-0000-7000-8000-000000000000"
NOWHERE = dict.fromkeys(("task_id", "output_id", "container_id", "deployment_id", "served_id", "token_id"), ZERO) | {
    "secret": "NOTHING", "volume": "nothing", "queue": "nothing", "source_id": "1" * 64, "path": "x",
}  # fmt: skip
SERVED = msgspec.json.encode(ServeRequest(QueueConfig(handler="app:served"), SOURCE, IMAGE.id)).decode()
# What a route takes besides its path: whoever is let in gets as far as the thing itself.
BODIES = {
    "POST /v2/deployments": SERVED[:-1] + ', "name": "mine"}',
    "POST /v2/serve": SERVED,
    "PUT /v2/serve/{served_id}": SERVED,
    "DELETE /v2/task/cancel": '{"task_ids": ["%(task_id)s"]}',
    "DELETE /api/v1/task/{workspace}": '{"task_ids": ["%(task_id)s"]}',
    "POST /v2/secrets": '{"name": "MINE", "value": "x"}',
    "POST /secret/{workspace}": '{"name": "MINE", "value": "x"}',
    "PATCH /v2/secrets/{secret}": '{"value": "x"}',
    "PATCH /secret/{workspace}/{secret}": '{"value": "x"}',
    "POST /v2/volumes": '{"name": "mine"}',
    "PUT /v2/volumes/{volume}/file": "x",
    "POST /v2/volumes/{volume}/move": '{"source": "a", "target": "b"}',
    "POST /v2/images/prune": '{"dry_run": false}',
    "POST /v2/tokens": '{"role": "admin"}',
    "POST /api/v1/token/{workspace}": '{"role": "admin"}',
}
OUTPUT = "00000000-0000-7000-8000-00000000000f"
VALUE, BYTES = "the value of the secret", b"the bytes of the file"


class House:
    """A server with one of everything in its workspace, another workspace, and a token of every kind."""

    def __init__(self, data: Path) -> None:
        self.server = server = Inside(data)
        line = agent(server)
        self.ended, over = self._container(line, "ended")
        server.ask(server.engine.fleet.gone, Gone(self.ended, "over"))
        container_id, working = self._container(line, "resize")
        self._link = runner(server, container_id, working)
        self._link.hear()
        self.elsewhere = self._of_another_workspace(line)
        line.hang_up()  # else routes that ask agents would wait for it
        (running,) = server.house.reader.running_in(container_id)
        server.ask(server.engine.outputs.save, SaveOutput(OUTPUT, running.id, 1, "saved.txt", 1, "outputs/x"))
        sealed = server.engine.secrets.vault.seal(server.workspace.id, "KEY", VALUE)
        server.ask(server.engine.secrets.create, KeepSecret(server.workspace.id, "KEY", sealed))
        assert server.request("PUT", "/v2/volumes/shared/file?path=a", content=BYTES).status_code == 201
        answer = server.request("POST", "/v2/serve", content=SERVED)
        server.loop.call_soon_threadsafe(server.house.sessions.close)  # nobody follows it, and it stays
        made = server.request("POST", "/v2/tokens", json={"role": "read"}).json()
        self.there = {
            "task_id": running.id, "output_id": OUTPUT, "container_id": container_id, "deployment_id": running.deployment_id,
            "served_id": answer.json()["deployment_id"], "token_id": made["id"], "secret": "KEY", "volume": "shared",
            "queue": "resize", "source_id": "2" * 64, "path": "x",
        }  # fmt: skip
        server.ask(server.engine.catalog.add_source, NewSource(server.workspace.id, "2" * 64, 1))
        self.tokens = {role: server.add_token(role) for role in auth.LADDER}
        self.strangers = {
            "none": "", "wrong": "Bearer " + "x" * 86, "of another scheme": f"Digest {server.token}", "a part": server.token[:-1],
            "in another case": server.token.swapcase(), "off": server.add_token(Role.ADMIN, active=False),
            "revoked": self._revoked(), "of a container that is over": over, "its own hash": auth.token_hash(server.token),
            "sql": "' OR 1=1 --", "not text": "Bearer \xff\xfe",
        }  # fmt: skip
        self.working = working

    def _container(self, line: Telephone, queue: str) -> tuple[str, str]:
        """The id and the token of a container of this queue, which has one task."""
        self.server.deploy(queue)
        self.server.submitted(queue)
        return wanted_container(self.server, line)

    def _revoked(self) -> str:
        made = self.server.request("POST", "/v2/tokens", json={"role": "admin"}).json()
        token: str = made["token"]
        assert self.server.request("GET", "/v2/workspace", token=token).status_code == 200
        assert self.server.request("DELETE", f"/v2/tokens/{made['id']}").status_code == 200
        return token

    def _of_another_workspace(self, line: Telephone) -> str:
        """The token of a container that runs there."""
        token, other = self._workspace()
        server, config = self.server, QueueConfig(handler="app:there")
        verb = Deploy(str(uuid4()), other.id, "there", config, SOURCE, IMAGE.id)
        made = server.ask(server.engine.switch.deploy, verb).deployment
        assert server.enqueue("there", token=token).status_code == 200
        while not (found := [container for container in wanted(line).containers if container.deployment_id == made.id]):
            pass
        return found[0].token

    def foreign(self) -> str:
        """The token of an admin of another workspace, where nothing is but source."""
        return self._workspace()[0]

    def _workspace(self) -> tuple[str, Workspace]:
        new = Workspace(0, str(uuid4()), uuid4().hex, "sk_2", "u", 0.0)
        other = self.server.wait(self.server.bridge.run(lambda _: self.server.store.insert_workspace(new)))
        self.server.ask(self.server.engine.catalog.add_source, NewSource(other.id, SOURCE, 1))
        return self.server.add_token(Role.ADMIN, other), other

    def ask(self, route: str, *, header: str | None = None, there: bool = True, **also: Any) -> httpx2.Response:
        """Ask a route of the table for what is there, or for what is not."""
        method, path = route.split(" ")
        query = DOORS[route].query if route in DOORS else ""
        names = (self.there if there else NOWHERE) | {"workspace": self.server.workspace.external_id}
        also.setdefault("content", BODIES.get(route, "") % names)
        return self.server.request(method, f"{path}?{query}".format_map(names), header=header, **also)

    def everything(self) -> set[str]:
        """All rows of the database, and all files of the volume."""
        connection: Any = self.server.store._connection  # type: ignore[attr-defined]
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()]
        rows = {f"{name}{row}" for name in tables for row in connection.execute(f'SELECT * FROM "{name}"').fetchall()}
        return rows | {self.server.request("GET", "/v2/volumes/shared/file?path=a").text}

    def secrets(self, route: str) -> list[str]:
        """What no stranger may be told, less what the request itself names."""
        told = route.split(" ")[1] + (DOORS[route].query if route in DOORS else "")
        named = {name for name in self.there if f"{{{name}}}" in told}
        named |= {"deployment_id"} if "container_id" in named else set()  # it is a part of that
        ids = [value for name, value in self.there.items() if len(value) > 30 and name not in {*named, "source_id"}]
        return [VALUE, BYTES.decode(), self.server.workspace.signing_key, self.server.workspace.url_key, *ids]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builds, "AGENT_SECONDS", 0.01)  # no agent comes
        house = House(tmp_path_factory.mktemp("doors"))
        yield house
        house.server.close()


def routes_of(server: Inside) -> set[str]:
    """What is served: by the bare routes in front of the framework, and by the framework, under the names of the table."""
    bare = {route for part in server.app._bare for route in part.routes}
    found = {route.replace("{version}", version) for route in bare for version in VERSIONS}
    for route in server.app._rest.routes:
        assert isinstance(route, HTTPRoute), "the framework serves HTTP alone"
        path = re.sub(r":\w+}", "}", route.path)
        if path.startswith("/v2/serve"):
            path = path.replace("deployment_id", "served_id")
        path = path.replace("{name}", "{volume}" if "/volumes/" in path else "{secret}")
        found |= {f"{method} {path}" for method in route.methods - {"OPTIONS"}}
    return found


def test_every_route_has_its_door(house: House) -> None:
    """A route that is new is in the table, or here is its failure; and so is one that has gone."""
    assert routes_of(house.server) == {*DOORS, *OPEN}
    assert house.server.app._links.keys() == LINKS.keys()
    known = {"_rest", "_others", "enqueue", "_bare", "_links"}
    assert vars(house.server.app).keys() == known, "there is another part that answers: put what it answers into the table"


def test_paths_are_matched_in_the_table_alone() -> None:
    """What is in front of the framework looks at no other path than those that the test above counts."""
    counted = {"/", "/?", hot.PREFIX, hot.BATCH, hot.WARMUP, results.ROUTE, "/health", "/openapi.json"}
    for module in (app, lane, patience, cork, hot, results, links, sockets):
        tree = ast.parse(Path(module.__file__).read_text())
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)}
        paths = {word if isinstance(word, str) else word.decode("latin-1") for word in words if word[:1] in ("/", b"/")}
        assert paths <= counted, module.__name__


def test_a_wish_that_is_not_in_the_table_is_none(house: House) -> None:
    """Not even for an admin, over the short way or the long one; nor is a queue under any other path."""
    wire = Wire(house.server)
    for form in ("public/{deployment_id}/warmup", "{queue}/v1/x", "{queue}/v1/x/batch", "id/{deployment_id}/v1", "", "batch/batch"):
        path = f"/taskqueue/{form}".format_map(house.there)
        wire.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.server.token}\r\nContent-Length: 2\r\n\r\n{{}}")
        assert (wire.answer()[0], house.server.request("POST", path, content="{}").status_code) == (404, 404), path
    wire.close()


@pytest.mark.parametrize("route", DOORS)
def test_strangers_stay_outside(house: House, route: str) -> None:
    """401 in the one shape, whatever they show; no route looks at more before. Nothing that makes a browser ask."""
    before = house.everything()
    for who, header in house.strangers.items():
        answer = house.ask(route, header=header)
        assert answer.status_code == 401, who
        assert "www-authenticate" not in answer.headers
        if not route.startswith("HEAD"):
            assert answer.json().keys() == {"error", "code", "advice", "message"}
    assert house.everything() == before


def test_strangers_stay_outside_on_the_short_way_to_queues(house: House) -> None:
    """Over a socket, requests to queues are not given to the application but answered before it."""
    before, wire = house.everything(), Wire(house.server)
    weak = {"too small a role": house.tokens[Role.READ], "the agent": AGENT_TOKEN, "another workspace": house.foreign()}
    weak |= {"a container elsewhere": house.elsewhere}
    others = {"too small a role": 403, "another workspace": 404, "a container elsewhere": 404}
    for path in (route.removeprefix("POST ") for route in {*DOORS, *OPEN} if "/taskqueue/" in route):
        for who, header in (house.strangers | weak).items():
            status, headers, _ = over(wire, f"POST {path.format_map(house.there)}", header, "{}")
            assert status == (400 if "/public/" in path else others.get(who, 401)), (path, who)
            assert "www-authenticate" not in headers
    wire.close()
    assert {row for row in house.everything() if not row.startswith(("workspace(", "token(", "source("))} <= before


def test_strangers_stay_outside_over_a_socket(house: House) -> None:
    """Whatever stands before the application lets nobody pass it by; and what is open shows nothing there either."""
    before, wire = house.everything(), Wire(house.server)
    names = house.there | {"workspace": house.server.workspace.external_id}
    for route in sorted({*DOORS, *OPEN}):
        if route.startswith("HEAD"):
            continue  # its answer says how long a body would be, and has none
        query = DOORS[route].query if route in DOORS else ""
        for header in ("", "Bearer " + "x" * 86, house.strangers["of a container that is over"]):
            status, _, body = over(wire, f"{route}?{query}".format_map(names), header, BODIES.get(route, "{}") % names)
            assert status == 401 or route in OPEN, route
            assert not any(secret in body.decode() for secret in house.secrets(route)), route
    wire.close()
    assert house.everything() == before


def over(wire: Wire, line: str, header: str, body: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request over a socket."""
    wire.socket.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n".encode())
    wire.socket.sendall(f"Authorization: {header}\r\n".encode("latin-1") if header else b"")
    wire.send(f"Content-Length: {len(body)}\r\n\r\n{body}")
    return wire.answer()


@pytest.mark.parametrize("route", [route for route, door in DOORS.items() if door.role is not None and door.container])
def test_a_container_of_another_workspace_finds_nothing(house: House, route: str) -> None:
    """Where those of this one are let in."""
    before = house.everything()
    answer = house.ask(route, header=house.elsewhere)
    assert answer.status_code in (400, 403, 404), answer.text
    for secret in house.secrets(route):
        assert secret not in answer.text
    assert house.everything() == before


@pytest.mark.parametrize("route", DOORS)
def test_a_role_opens_its_own_doors_and_those_below(house: House, route: str) -> None:
    """One that is too small is told which it takes, and changes nothing."""
    door, before = DOORS[route], house.everything()
    for role in auth.LADDER:
        header = f"Bearer {house.tokens[role]}"
        if door.role is not None and auth.LADDER.index(role) >= auth.LADDER.index(door.role):
            answer = house.ask(route, header=header, there=False, content=b"nonsense")
            assert answer.status_code not in (401, 403), answer.text
        else:
            answer = house.ask(route, header=header)
            assert answer.status_code == (401 if door is AGENTS else 403)
            if door.role is not None and not route.startswith("HEAD"):
                assert repr(door.role.value) in answer.json()["advice"]
            assert house.everything() == before


@pytest.mark.parametrize("route", DOORS)
def test_what_runs_in_a_container_opens_few_doors(house: House, route: str) -> None:
    """Its own and those of `.put()`; not even an admin is let in where containers alone are."""
    door = DOORS[route]
    if door.container:
        answer = house.ask(route, header=house.working, there=False, content=b"nonsense")
        assert answer.status_code not in (401, 403), answer.text
    else:
        before = house.everything()
        assert house.ask(route, header=house.working).status_code == (401 if door is AGENTS else 403)
        assert house.everything() == before


@pytest.mark.parametrize("route", DOORS)
def test_the_agents_token_opens_one_door(house: House, route: str) -> None:
    """The source of deployments, for it unpacks it; it knows no workspace."""
    answer = house.ask(route, header=AGENT_TOKEN, there=False)
    assert answer.status_code == (404 if DOORS[route] is AGENTS else 401)


@pytest.mark.parametrize("route", [route for route, door in DOORS.items() if door.role is not None])
def test_another_workspace_is_told_nothing_and_changes_nothing(house: House, route: str) -> None:
    """Its admin finds no object by its id, sees none in a list, and has nothing of what is here altered."""
    foreign, before = house.foreign(), house.everything()
    answer = house.ask(route, header=foreign)
    assert answer.status_code != 403
    if "{" in route and not route.startswith("PUT /v2/sources/") and route != "PUT /v2/volumes/{volume}/file":  # makes its own
        assert answer.status_code == 404, answer.text
    for secret in house.secrets(route):
        assert secret not in answer.text
    assert house.everything() >= before


@pytest.mark.parametrize("route", sorted(OPEN))
def test_what_is_open_shows_nothing(house: House, route: str) -> None:
    """Nobody is asked for a token: no data of any workspace is told, and no task is taken by a queue that is not public."""
    before = house.everything()
    answer = house.ask(route, header="")
    for secret in house.secrets(route):
        assert secret not in answer.text
    assert house.everything() == before
    if "{" in route and "{path}" not in route:
        assert answer.status_code == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
@pytest.mark.parametrize("route", sorted({route.split(" ")[1] for route in DOORS}))
def test_no_other_method_is_a_way_in(house: House, route: str, method: str) -> None:
    """Each path by each method, without a token: refused, or no such thing. OPTIONS says which methods there are."""
    answer = house.server.request(method, route.format_map(house.there | {"workspace": "default"}), header="")
    assert answer.status_code in ((204, 404, 405) if method == "OPTIONS" else (400, 401, 404, 405))
    for secret in house.secrets(f"GET {route}"):
        assert secret not in answer.text


@pytest.mark.parametrize(
    "spelling",
    ["/{}", "{}/", "{}//", "/./{}", "/x/..{}", "{}/.", "{};x", "{}%00", "{}%20", "{}?auth_token={token}", "{}?token={token}",
     "{}#", "\\{}"],
)  # fmt: skip
def test_no_spelling_of_a_path_is_a_way_in(house: House, spelling: str) -> None:
    """Nor is a token in the URL, where logs and other sites would get to see it."""
    for route in (route for route in DOORS if route.startswith("GET")):
        path = route.split(" ")[1].format_map(house.there | {"workspace": "default"})
        answer = house.server.request("GET", spelling.format(path, token=quote(house.server.token)), header="")
        assert answer.status_code in (400, 401, 404, 405), route


@pytest.mark.parametrize("path", LINKS)
def test_links_are_opened_by_their_own_tokens_alone(house: House, path: str) -> None:
    """Anybody else is told not to come back, before the link is there."""
    right = {RUNNERS: house.working, AGENTS: AGENT_TOKEN}[LINKS[path]]
    wrong = [*house.strangers.values(), *house.tokens.values(), house.foreign(), *({house.working, AGENT_TOKEN} - {right})]
    for header in wrong:
        line = Telephone(house.server, path, header.removeprefix("Bearer "))
        assert line.hear() == {"type": "websocket.close", "code": 4003}
        line.hang_up()
    line = Telephone(house.server, path, right)
    assert line.hear() == {"type": "websocket.accept"}
    line.hang_up()


def test_there_are_no_other_links(house: House) -> None:
    """Whatever the token."""
    for path in ("/", "/link", "/link/", "/link/runner/", "/v2/task", "/link/agent/x"):
        line = Telephone(house.server, path, house.working)
        assert line.hear() == {"type": "websocket.close", "code": 4004}
        line.hang_up()


def test_the_doors_of_the_table_are_those_of_both_kinds() -> None:
    """The rows above are what the tests take them for."""
    assert sum(door is AGENTS for door in DOORS.values()) == 1
    assert [route for route, door in DOORS.items() if door.role is None and door.container] == ["PUT /v2/outputs"]
    assert all(isinstance(door, Door) for door in DOORS.values())
