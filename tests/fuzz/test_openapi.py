"""Every operation of /openapi.json is tried with what the document allows and what it does not, by schemathesis.

It is held to what the document says of answers: statuses, media types, and schemas, errors included.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.inside import IMAGE, SOURCE
from treadle.server import app
from treadle.server.openapi import described

from .effort import effort
from .listening import Listening

FOLLOWED = "/v2/serve/{deployment_id}/logs"  # of a real one it never ends
PATIENCE = 0.05  # seconds of `wait` at most: nothing ends here
SLOW = "wait"
Json = dict[str, Any]


def _document() -> Json:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the framework says of the server's style is not this test's matter
        rest = app._litestar(cast(Any, None), "0")
        return described(rest.openapi_schema.to_schema(), rest)


DOCUMENT = _document()
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in sorted(methods)]


@pytest.fixture(scope="module")
def operations(server: Listening) -> Any:
    """Operations by path and method, with a strategy each; made of what the server really sends."""
    import schemathesis

    return schemathesis.openapi.from_dict(httpx2.get(f"{server.url}/openapi.json", trust_env=False).json())


@pytest.fixture(scope="module")
def known(server: Listening) -> dict[str, list[str]]:
    """Values of path parameters that lead to something."""
    task_id = server.submitted("resize", {"x": 1})
    server.until(lambda: any(wanted.containers for wanted in server.wanted))
    container_id = next(wanted.containers[0].container_id for wanted in server.wanted if wanted.containers)
    for path, body in (("/v2/secrets", {"name": "KEY", "value": "v"}), ("/v2/volumes", {"name": "files"})):
        assert server.request("POST", path, json=body).is_success
    assert server.request("PUT", "/v2/volumes/files/file", params={"path": "a/b"}, content=b"x").is_success
    return {
        "task_id": [task_id],
        "container_id": [container_id],
        "deployment_id": [server.deploy("other").id, server.deploy("another", authorized=False).id],
        "name": ["resize", "KEY", "files"],
        "version": ["latest", "v1"],
        "workspace": [server.workspace.name],
        "source_id": [SOURCE],
    }


def _aim(case: Any, data: st.DataObject, known: dict[str, list[str]]) -> None:
    """Put what exists in the place of some of what does not, so that more is reached than `not found`."""
    if case.operation.path != FOLLOWED:
        for name in case.path_parameters or {}:
            if name in known and data.draw(st.booleans(), label=f"a known {name}"):
                case.path_parameters[name] = data.draw(st.sampled_from(known[name]), label=name)
    if isinstance(case.body, dict) and data.draw(st.booleans(), label="a known body"):
        real = {"source_id": SOURCE, "image_id": IMAGE.id, "name": "made", "path": "a/b", "source": "a/b", "target": "c"}
        case.body.update({name: real[name] for name in case.body if name in real})
        if isinstance(case.body.get("config"), dict):
            case.body["config"]["handler"] = "app:handler"
    wait = (case.query or {}).get(SLOW)
    if isinstance(wait, int | float) and 0 <= wait <= 60:
        case.query[SLOW] = min(wait, PATIENCE)


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda value: value)
def test_an_operation_keeps_to_the_document(
    server: Listening, operations: Any, known: dict[str, list[str]], path: str, method: str
) -> None:
    """Whatever it is given, it answers what the document says it answers, and does not fail."""
    from schemathesis import checks

    held = [
        checks.CHECKS.get_one(name)
        for name in ("status_code_conformance", "content_type_conformance", "response_schema_conformance",
                     "response_headers_conformance", "negative_data_rejection")
    ]  # fmt: skip
    operation = operations[path][method.upper()]

    @effort(6)
    @given(case=operation.as_strategy(), data=st.data())
    def tried(case: Any, data: st.DataObject) -> None:
        _aim(case, data, known)
        answer = case.call(base_url=server.url, headers={"authorization": f"Bearer {server.token}"}, timeout=20)
        assert answer.status_code < 500 or answer.json()["code"] == "unavailable", answer.text
        case.validate_response(answer, checks=held)

    tried()
