"""Every arrow of the house points down: which room may import which, as one table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import treadle
from tidy.reading import PACKAGE, imports, shown, sources

# The floors, from the ground up. No room imports one of its own floor or above.
FLOORS = (
    ("model", "connection", "lines", "depths"),
    ("exchange",),
    ("store", "rules", "blob", "launcher", "runtime", "client"),
    ("engine", "sdk"),
    ("server", "agent", "runner"),
    ("cli",),
)
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "rules": {"model"},
    "store": {"model"},
    "blob": {"model", "depths"},
    "launcher": {"model"},
    "runtime": {"model", "depths"},
    "connection": set(),
    "lines": set(),
    "depths": set(),
    "exchange": {"connection", "model"},
    "client": {"exchange", "model"},
    "engine": {"store", "rules", "blob", "model", "depths"},
    "sdk": {"client", "model", "lines"},
    "server": {"engine", "launcher", "model", "lines"},
    "agent": {"runtime", "client", "model", "lines", "depths"},
    "runner": {"client", "sdk", "model"},
    "cli": {"server", "agent", "sdk", "client", "model", "lines"},
    "aliases": {"sdk"},  # `beam` and `beta9`: nothing but other names for the SDK's
    "__main__": {"cli"},
    "__init__": {"sdk", "model"},  # the face: names that load on first use
}
RUNS_USER_CODE = {"src/treadle/runner/child.py", "src/treadle/runner/handler.py"}  # the only ones that need the SDK
FILES = sources("src/treadle")


def _room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_the_table_itself_points_down() -> None:
    """A room may import only rooms of lower floors, so there can be no circle."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for room, below in MAY_IMPORT.items():
        assert all(floor[other] < floor.get(room, len(FLOORS)) for other in below), room


def test_every_file_belongs_to_a_room() -> None:
    """No room exists that the table does not know."""
    rooms = {_room_of(path) for path in FILES}
    assert rooms <= MAY_IMPORT.keys(), f"unknown rooms: {rooms - MAY_IMPORT.keys()}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_imports_go_down_only(path: Path) -> None:
    """A file imports its own room, the package's bare facts, and what the table allows its room; nothing else."""
    room = _room_of(path)
    allowed = {room, ""} | MAY_IMPORT.get(room, set())
    wrong = [one for one in imports(path) if one.room not in allowed]
    assert not wrong, "\n".join(f"{one.file}:{one.line}: {room} may not import {one.module}" for one in wrong)


def test_only_the_child_of_a_runner_needs_the_sdk() -> None:
    """The runner's parent, template and link load nothing of what users write with."""
    found = {one.file for path in sources("src/treadle/runner") for one in imports(path) if one.room == "sdk"}
    assert found <= RUNS_USER_CODE, found - RUNS_USER_CODE


def test_only_the_client_speaks_http_to_the_server() -> None:
    """Only what the client stands on uses our HTTP connection, nobody another one but the webhook sender, which calls users."""
    assert [room for room, below in MAY_IMPORT.items() if "connection" in below] == ["exchange"]
    assert [room for room, below in MAY_IMPORT.items() if "exchange" in below] == ["client"]
    libraries = {"http.client", "urllib.request", "httpx", "httpx2", "httpcore", "httpcore2", "requests"}
    allowed = {"src/treadle/server/sender.py"}
    for path in FILES:
        named = {name for node in ast.walk(ast.parse(path.read_text())) for name in _modules(node)}
        assert shown(path) in allowed or not named & libraries, f"{shown(path)} imports {named & libraries}"


def test_no_file_of_a_room_is_named_as_a_package_face() -> None:
    """`__init__.py` files hold a docstring; only the face, the CLI's entry and the aliases hold code."""
    holding = {"src/treadle/__init__.py", "src/treadle/cli/__init__.py"}
    for path in FILES:
        if path.name == "__init__.py" and shown(path) not in holding and "aliases" not in path.parts:
            body = ast.parse(path.read_text()).body
            assert len(body) <= 1, f"{shown(path)} holds code: move it to a file that says what it is for"


def test_the_face_tells_type_checkers_what_it_loads() -> None:
    """The imports of `treadle/__init__.py` stand under TYPE_CHECKING only, and are its lazily loaded names."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    told = {name.name: node.module for node in guarded if isinstance(node, ast.ImportFrom) for name in node.names}
    told["env"] = "treadle.sdk.env"  # a module, not a name in one
    assert told == treadle._HOMES
    loose = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module in told.values()]
    assert not loose


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
