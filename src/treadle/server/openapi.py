"""The document at /openapi.json: what the framework knows of its routes, and what it cannot know of them and of ours.

A handler says `takes=` what its body is (a struct for JSON, bytes for a stream) and `gives=` the media type of an
answer that is no struct. Every route answers what it refuses with ErrorBody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Litestar, Request, Router
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.routes import HTTPRoute

from treadle.engine.face import MAX_BATCH
from treadle.model.api import Accepted, AcceptedMany, ErrorBody, ResultView

Json = dict[str, Any]
REFERENCE = "#/components/schemas/{name}"
BYTES: Json = {"type": "string", "format": "binary"}
OPEN = ("/health", "/output/id/{output_id}", "/openapi.json")  # and the public queues: no token is asked for
MAX_WAIT = 60
NO_BODY: Json = {"description": "Nothing."}


class Described(JsonRenderPlugin):
    """Renders the document, and takes back the framework's own page for what is not found below its path."""

    def __init__(self) -> None:
        super().__init__(path="/")
        self._document = b""

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        if not self._document:
            self._document = msgspec.json.encode(described(openapi_schema, request.app))
        return self._document

    def receive_router(self, router: Router) -> None:
        router.routes = [route for route in router.routes if route.path == router.path]


def described(document: Json, app: Litestar) -> Json:
    """The framework's document with bodies, errors, tokens and the routes that it does not see."""
    words = _Words()
    paths: Json = {}
    for path, operations in document["paths"].items():
        paths[path] = {method: dict(operation) for method, operation in operations.items()}
    for path, method, options in _handlers(app):
        if operation := paths.get(path, {}).get(method):
            _complete(operation, method, options, words)
    paths |= _bare(words)
    for path, operations in paths.items():
        for method, operation in operations.items():
            _tell_errors(operation, words, head=method == "head")
            operation["security"] = [] if path in OPEN or "/public/" in path else [{"token": []}]
    schemas = {**document.get("components", {}).get("schemas", {}), **words.schemas}
    token = {"type": "http", "scheme": "bearer"}
    components = {"schemas": schemas, "securitySchemes": {"token": token}}
    return {**document, "paths": dict(sorted(paths.items())), "components": components}


class _Words:
    """Makes schemas of structs, and keeps those that are referred to."""

    def __init__(self) -> None:
        self.schemas: Json = {}

    def json(self, kind: Any) -> Json:
        """A media type object for JSON of this kind."""
        (schema,), named = msgspec.json.schema_components([kind], ref_template=REFERENCE)
        self.schemas |= named
        return {"application/json": {"schema": schema}}


def _handlers(app: Litestar) -> Iterator[tuple[str, str, Json]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _) in route.route_handler_map.items():
                yield route.path_format, method.lower(), dict(handler.opt)


def _complete(operation: Json, method: str, options: Json, words: _Words) -> None:
    takes, gives = options.get("takes"), options.get("gives")
    if takes is not None:
        content = {"application/octet-stream": {"schema": BYTES}} if takes is bytes else words.json(takes)
        operation["requestBody"] = {"content": content, "required": method != "delete"}
    if gives is not None:
        good = next(status for status in operation["responses"] if status.startswith("2"))
        content = {gives: {"schema": BYTES if gives == "*/*" else {"type": "string"}}}
        if page := options.get("page"):
            content |= words.json(page)
        operation["responses"][good] = {"description": "A stream.", "content": content}


def _tell_errors(operation: Json, words: _Words, *, head: bool) -> None:
    refused: Json = {"description": "Refused: what is wrong, and what to do."}
    if not head:  # an answer to HEAD has no body
        refused["content"] = words.json(ErrorBody)
    responses = operation.setdefault("responses", {})
    responses.pop("400", None)  # the framework's own shape, which is never sent
    not_now = {**refused, "description": "Not now: the server stops, or no agent is there."}
    responses |= {"4XX": refused, "503": not_now}


def _bare(words: _Words) -> Json:
    """The routes in front of the framework."""
    arguments = {"oneOf": [{"type": "object"}, {"type": "null"}]}
    batch = {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": MAX_BATCH}
    one, many = words.json(Accepted), words.json(AcceptedMany)
    paths: Json = {}
    for target in ("{name}", "{name}/{version}", "id/{deployment_id}", "public/{deployment_id}"):
        path = f"/taskqueue/{target}"
        paths[path] = _post("Submit a task.", path, arguments, one)
        paths[f"{path}/batch"] = _post("Submit tasks, all or none.", f"{path}/batch", batch, many)
        if "public" not in target:
            paths[f"{path}/warmup"] = _post("Have a container ready.", f"{path}/warmup", None, None)
    wait = {"name": "wait", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": MAX_WAIT}}
    path = "/v2/task/{task_id}/result"
    found = {"description": "As it is, or as it is after `wait` seconds.", "content": words.json(ResultView)}
    paths[path] = {"get": {
        "summary": "Status and result, and nothing else of the record.", "operationId": "Result", "tags": ["tasks"],
        "parameters": [*_named(path), wait], "responses": {"200": found},
    }}  # fmt: skip
    return paths


def _post(summary: str, path: str, body: Json | None, answer: Json | None) -> Json:
    name = "".join(word.capitalize() for word in path.replace("{", "").replace("}", "").split("/"))
    given = {"description": "On disk.", "content": answer} if answer else NO_BODY
    operation: Json = {
        "summary": summary, "operationId": name, "tags": ["queues"], "parameters": _named(path),
        "responses": {"200": given},
    }  # fmt: skip
    if body is not None:
        required = "oneOf" not in body  # no body at all is a task without arguments
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}, "required": required}
    return {"post": operation}


def _named(path: str) -> list[Json]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    version = {"type": "string", "pattern": r"^(latest|v\d{1,9})$"}
    return [
        {"name": name, "in": "path", "required": True, "schema": version if name == "version" else {"type": "string"}}
        for name in names
    ]
