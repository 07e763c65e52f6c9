"""The reference is complete: whatever a user can write, call or set is in it, with the right default."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any, cast

import pytest
import typer.core
from litestar.routes import HTTPRoute
from pages import REFERENCE, part, rows, table
from typer.main import get_command

import treadle
from treadle.blob import tree
from treadle.cli.app import app as cli
from treadle.model import deployment, errors, settings
from treadle.model.task import FailureKind, TaskStatus
from treadle.model.wire import AGENT_PATH, RUNNER_PATH
from treadle.sdk.options import QueueDepthAutoscaler, TaskPolicy
from treadle.server import app, hot, outputs, tasks, volumes

HTTP, PYTHON, CLI, SETTINGS = (REFERENCE / f"{name}.md" for name in ("http", "python", "cli", "settings"))
PARAMETERS = inspect.signature(treadle.task_queue).parameters


# Python


@pytest.mark.parametrize("name", treadle.__all__)
def test_every_public_name_is_explained(name: str) -> None:
    """Each name that `treadle` has is in the first table of the Python reference."""
    assert name in rows(PYTHON, "## Names"), f"{name} is not in docs/reference/python.md"


def test_every_parameter_of_the_decorator_is_explained() -> None:
    """The table of the decorator has its parameters, all of them, and no others."""
    given = {name for name, parameter in PARAMETERS.items() if parameter.kind is parameter.KEYWORD_ONLY}
    documented = {name for name in rows(PYTHON, "## `task_queue`") if name.isidentifier()}
    assert documented == given


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "func"])
def test_the_default_of_a_parameter_is_the_real_one(name: str) -> None:
    """What the table says a parameter is by default is what the decorator takes."""
    said = rows(PYTHON, "## `task_queue`")[name][2].strip("`").replace('"', "'").replace("_", "")
    assert said == repr(PARAMETERS[name].default).replace("_", "")


@pytest.mark.parametrize("kind", [TaskPolicy, QueueDepthAutoscaler])
def test_the_fields_of_options_are_explained_with_their_defaults(kind: type) -> None:
    """TaskPolicy and QueueDepthAutoscaler have a table each, with every field and its default."""
    fields = rows(PYTHON, f"## `{kind.__name__}`")
    for name, parameter in inspect.signature(kind).parameters.items():
        cell = next(cell for cell in fields[name][1:] if cell.startswith("`"))
        assert cell.strip("`") == repr(parameter.default), name


@pytest.mark.parametrize("kind", [treadle.TaskHandle, treadle.Output, treadle.Image, treadle.Volume, treadle.FunctionContext])
def test_every_public_member_is_explained(kind: type) -> None:
    """Whatever a handle, an output, an image or a context offers is named in its part of the reference."""
    text = part(PYTHON, f"## `{kind.__name__}`")
    members = {name for name in dir(kind) if not name.startswith("_")} - {"spec", "mount"}
    missing = {name for name in members if not re.search(rf"\b{name}\b", text)}
    assert not missing, missing


# HTTP


def _routes() -> Iterator[str]:
    """Every route of the application: those of the framework, and the bare ones in front of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the framework says of the server's style is not this test's matter
        rest = app._litestar(cast(Any, None), "0")
    for route in rest.routes:
        if isinstance(route, HTTPRoute) and not route.path.startswith("/openapi.json"):
            path = re.sub(r":\w+}", "}", route.path)
            yield from (f"{method} {path}" for method in route.methods - {"OPTIONS"})
    yield "GET /openapi.json"
    yield "GET /v2/task/{task_id}/result"
    yield from (f"POST {hot.PREFIX}{form}" for form in ("{name}", "{name}/latest", "{name}/v{n}", "{name}/batch", "{name}/warmup"))
    yield from (f"POST {hot.PREFIX}{form}/{{deployment_id}}" for form in ("id", "public"))
    yield f"POST {hot.PREFIX}id/{{deployment_id}}/warmup"


@pytest.mark.parametrize("route", sorted(set(_routes())))
def test_every_route_is_explained(route: str) -> None:
    """Each method and path that the server answers is in docs/reference/http.md."""
    documented = {name.rstrip("/") for name in re.findall(r"`([A-Z]+ /[^`?]*)[?`]", HTTP.read_text())}
    assert route.rstrip("/") in documented


def test_no_route_is_explained_that_does_not_exist() -> None:
    """Each method and path in docs/reference/http.md is one that the server answers."""
    documented = {name.rstrip("/") for name in re.findall(r"`([A-Z]+ /[^`?]*)[?`]", HTTP.read_text())}
    assert documented <= {route.rstrip("/") for route in _routes()}


def test_the_links_of_runners_and_agents_are_mentioned() -> None:
    """The paths of the WebSockets are named, as the server's own business."""
    text = HTTP.read_text()
    assert f"`{RUNNER_PATH}`" in text and f"`{AGENT_PATH}`" in text


def test_every_error_code_is_explained_with_its_status() -> None:
    """The table of errors has each code and the HTTP status that it comes with."""
    codes = rows(HTTP, "## Errors")
    kinds = {**errors.BY_CODE, hot.MethodNotAllowed.code: hot.MethodNotAllowed}
    assert {code: codes[code][1] for code in kinds} == {code: str(kind.status) for code, kind in kinds.items()}


def test_every_status_and_kind_of_failure_is_explained() -> None:
    """The words that a task record uses are in the reference and on the lifecycle page."""
    assert not [word for word in TaskStatus if word not in HTTP.read_text()]
    kinds = [cells[1].strip("`") for cells in table(REFERENCE.parent / "lifecycle.md", "## What is retried")[2:]]
    assert sorted(kinds) == sorted(FailureKind)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (tasks.MAX_WAIT, "0–60"),
        (tasks.MAX_LIMIT, "1–1000"),
        (outputs.MAX_EXPIRES, "1–604800"),
        (outputs.MAX_OUTPUT / 2**30, "at most 16 GiB"),
        (volumes.MAX_FILE / 2**40, "at most 1 TiB"),
        (tree.MAX_ENTRIES / 1000, "at most 100000"),
        (settings.Settings(data=REFERENCE).max_body / 2**20, "16 MiB"),
    ],
)
def test_limits_are_told_as_they_are(limit: float, words: str) -> None:
    """The numbers in the HTTP reference are those of the code."""
    assert f"{limit:g}" in words
    assert words in HTTP.read_text()


def test_limits_of_definitions_are_told_as_they_are() -> None:
    """The ranges in the Python reference are those of the code."""
    parameters = rows(PYTHON, "## `task_queue`")
    assert str(deployment.MAX_TIMEOUT) in parameters["timeout"][3]
    assert parameters["retries"][3] == f"0–{deployment.MAX_RETRIES}"
    assert str(deployment.MAX_TTL) in rows(PYTHON, "## `TaskPolicy`")["ttl"][1]


# command line


def _commands(command: Any = None, path: str = "treadle") -> Iterator[tuple[str, Any]]:
    command = command or get_command(cli)
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), list(_commands()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_and_flag_is_explained(path: str, command: Any) -> None:
    """Each command has a part of its own in docs/reference/cli.md, with every flag."""
    text = CLI.read_text() if hasattr(command, "commands") else part(CLI, f"## `{path}`")
    flags = [flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")]
    missing = [flag for flag in flags if flag != "--help" and f"`{flag}`" not in text and f" {flag}`" not in text]
    assert not missing, f"{path}: {missing}"


# settings


def test_every_setting_is_explained() -> None:
    """Each key of config.toml is in the table, and no other."""
    assert set(rows(SETTINGS, "## config.toml")) - {"--host", "--port", "--grace"} == set(settings.ALLOWED)


def test_every_default_of_a_setting_is_the_real_one() -> None:
    """Where the table gives a default as a value, it is the one of the code."""
    keys, defaults = rows(SETTINGS, "## config.toml"), settings.Settings(data=REFERENCE)
    for key in ("host", "port", "grace", "max_body"):
        assert re.findall(r"`([^`]+)`", keys[key][4])[0] == f"{getattr(defaults, key)}".removesuffix(".0")


def test_every_environment_variable_is_explained() -> None:
    """Whatever TREADLE_… variable the settings and the agent read is in the table."""
    source = REFERENCE.parents[1] / "src" / "treadle"
    read = {
        name
        for path in (source / "model" / "settings.py", *(source / "agent").glob("*.py"))
        for name in re.findall(r"TREADLE_[A-Z_]+", path.read_text())
    }
    assert read <= rows(SETTINGS, "## Environment variables").keys()


def test_the_typer_app_is_a_group() -> None:
    """The walk over the commands above sees them all."""
    assert isinstance(get_command(cli), typer.core.TyperGroup)
    assert len(list(_commands())) > 8
