"""Files and functions stay small, say what they are for, and use the words of the field."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidy.reading import shown, sources

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FORBIDDEN = {"job", "jobs", "util", "utils", "helper", "helpers", "common", "manager", "managers"}
FILES = sources("src", "tests", "examples", "docs", "benchmarks")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(path: Path) -> Iterator[Definition]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Definition):
            yield node


def _words(name: str) -> set[str]:
    return {word.lower() for word in WORD.findall(name)}


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_file_stays_under_the_limit(path: Path) -> None:
    """A file has at most 400 lines."""
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"{shown(path)} has {lines} lines: split it along what it is for"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_function_stays_under_the_limit(path: Path) -> None:
    """A function has at most 60 lines, its signature and docstring included."""
    for node in _definitions(path):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        fine = isinstance(node, ast.ClassDef) or lines <= MAX_FUNCTION_LINES
        assert fine, f"{shown(path)}:{node.lineno}: {node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_file_begins_by_saying_what_it_is_for(path: Path) -> None:
    """The first statement of a file is a docstring whose first line is a statement of its own."""
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc and doc.strip(), f"{shown(path)} does not say what it is for"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_names_use_the_words_of_the_field(path: Path) -> None:
    """No file, function or class is named after a drawer for things of all kinds."""
    names = [path.stem, *(node.name for node in _definitions(path))]
    wrong = {name for name in names if _words(name) & FORBIDDEN}
    assert not wrong, f"{shown(path)}: {', '.join(sorted(wrong))}"
