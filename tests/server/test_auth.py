"""Doors: which forms of a token are understood, and what each role may do."""

from __future__ import annotations

import hmac
import inspect
from base64 import b64encode

import pytest

from treadle.model.container import Role
from treadle.server import auth
from treadle.server.auth import Caller, bare

from .inside import AGENT_TOKEN, Inside


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


@pytest.mark.parametrize("role", [Role.AGENT, Role.CONTAINER])
def test_agents_and_containers_stand_apart(role: Role) -> None:
    """Neither is on the ladder."""
    assert not any(Caller(1, role).may(other) for other in Role)


def test_the_agents_token_is_compared_in_constant_time(shared: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `hmac.compare_digest`, over hashes; all other tokens are not compared but looked up by theirs."""
    compared: list[tuple[str, str]] = []
    monkeypatch.setattr(auth, "compare_digest", lambda *both: compared.append(both) or hmac.compare_digest(*both))
    for token in (AGENT_TOKEN, AGENT_TOKEN[:-1]):
        shared.request("GET", f"/v2/sources/{'1' * 64}", token=token)
    assert compared == [(auth.token_hash(token), auth.token_hash(AGENT_TOKEN)) for token in (AGENT_TOKEN, AGENT_TOKEN[:-1])]
    assert not [line for line in inspect.getsource(auth).splitlines() if "hash" in line and ("==" in line or "!=" in line)]


def test_spellings_of_a_header_do_not_add_up(shared: Inside) -> None:
    """What is remembered is one entry a token, by its hash: whoever has one cannot fill the memory with it."""
    for number in range(20):
        assert shared.request("GET", "/v2/workspace", header=basic(f"{number}:{shared.token}")).status_code == 200
    known = shared.house.doors._known
    assert list(known).count(auth.token_hash(shared.token)) == 1
    assert not [key for key in known if shared.token in key]
    assert len(known) < 20
