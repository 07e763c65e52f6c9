"""Reads the source for the tidy tests: which files there are, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import treadle

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "treadle"


class Import(NamedTuple):
    """One import of a part of Treadle; `room` is "" for the face itself."""

    file: str
    line: int
    room: str
    module: str


def sources(*folders: str) -> list[Path]:
    """The Python files below these folders of the repository."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if "__pycache__" not in path.parts)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[Import]:
    """Every import of Treadle in a file of the package, wherever it stands: in functions, under TYPE_CHECKING,
    relative, or through `import_module` with a constant name."""
    tree = ast.parse(path.read_text())
    here = ("treadle", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(tree):
        for module in _named(node, here):
            if module.split(".")[0] == "treadle":
                for room in _rooms(module, tree):
                    yield Import(shown(path), getattr(node, "lineno", 0), room, module)


def _named(node: ast.AST, here: tuple[str, ...]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            base = [*here[: len(here) - level]] if level else []
            full = ".".join([*base, *([module] if module else [])])
            if full == "treadle":
                yield from (f"treadle.{name.name}" for name in names)
            else:
                yield full
        case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=[first, *_]):
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def _rooms(module: str, tree: ast.Module) -> set[str]:
    """The rooms that an import reaches: one, or for the face those whose names are used through it."""
    if module == "treadle":
        return _through_the_face(tree)
    return {_room(module.split(".")[1])}


def _room(name: str) -> str:
    if name.startswith("__"):
        return ""  # __version__ and the like: facts about the package
    return treadle._HOMES.get(name, f"treadle.{name}").split(".")[1]


def _through_the_face(tree: ast.Module) -> set[str]:
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    through = [node for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "treadle"]
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "treadle"]
    rooms = {_room(node.attr) for node in through}
    return rooms | ({"sdk"} if len(names) > len(through) else set())  # handed on whole: any name may be looked up
