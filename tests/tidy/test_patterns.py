"""No regular expression of ours goes back over a text again and again: who sends one must not hold up all others."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from treadle.rules.admission import LONG_INTEGER, MAX_DIGITS

from .reading import PACKAGE, shown, sources

METHODS = {"match", "fullmatch", "search", "findall", "finditer", "split", "sub"}
LENGTH = 8000  # characters: what goes over them once takes 0.1 ms, what does so for each of them 100 and more
SECONDS = 0.03  # of the processor, so that it does not matter what else runs
ALPHABET = ("1", "a", "A", " ", "\n", ".", ":", "/", "-", "=", ";", "_", '"', "[", "+", "e", "\x1b", "\0", "é")


class Use(NamedTuple):
    """A pattern and one way in which it is used."""

    pattern: re.Pattern[Any]
    method: str
    where: str


def _uses() -> Iterator[Use]:
    """Every use of a regular expression in the package; not those that are made anew for each use."""
    for path in sources("src/treadle"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=method), args=[ast.Constant(value=text), *_]) if method in METHODS:
                    found: Any = re.compile(text)
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=method), args=[ast.Name(id=name), *_]) if method in METHODS:
                    found = _named(path, name)
                case ast.Attribute(value=ast.Name(id=name), attr=method) if method in METHODS and name.isupper():
                    found = _named(path, name)
                case _:
                    continue
            if isinstance(found, re.Pattern):
                yield Use(found, method, f"{shown(path).removeprefix('src/treadle/')}:{node.lineno}")


def _named(path: Path, name: str) -> Any:
    module = ".".join(("treadle", *path.relative_to(PACKAGE).with_suffix("").parts))
    return getattr(import_module(module), name, None)


USES = list(_uses())


def _texts(pattern: re.Pattern[Any]) -> Iterator[Any]:
    """One thing or two over and over, behind what the pattern may begin with, and an end that nothing expects."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    things = [*ALPHABET, *re.findall(r"[A-Za-z]{2,}", source)]
    for begin in ("", "a:", "https://", "HTTP/1.1 200 "):
        for pump in (left + right for left in things for right in ("", *things)):
            text = begin + pump * (LENGTH // len(pump)) + "\0!"
            yield text if isinstance(pattern.pattern, str) else text.encode()


def _seconds(use: Use, text: Any) -> float:
    apply = getattr(use.pattern, use.method)
    before = time.thread_time()
    found = apply(*(["", text] if use.method == "sub" and isinstance(text, str) else [text]))
    if use.method == "finditer":
        list(found)
    return time.thread_time() - before


@pytest.mark.parametrize("use", USES, ids=lambda use: use.where)
def test_a_long_text_is_gone_over_once(use: Use) -> None:
    """Whatever it is made of: twice the text takes twice the time, not four times."""
    for text in _texts(use.pattern):
        taken = _seconds(use, text)
        if taken > SECONDS:  # once, it may have been something else
            taken = min(_seconds(use, text) for _ in range(3))
        assert taken < SECONDS, f"{use.pattern.pattern!r}.{use.method} takes {taken:.2f} s over {text[:40]!r}…"


def test_texts_just_short_of_an_integer_that_is_too_long_are_gone_over_once() -> None:
    """As many digits as an integer may have, again and again: each digit is looked at once."""
    text = b",".join([b"1" * MAX_DIGITS] * 30)
    use = Use(LONG_INTEGER, "search", "")
    assert min(_seconds(use, text) for _ in range(3)) < SECONDS


def test_the_uses_of_patterns_are_found() -> None:
    """Named in the module, in another one, written out, and bytes."""
    found = {use.where.partition(":")[0] for use in USES}
    assert found >= {"rules/admission.py", "server/deployments.py", "model/deployment.py", "server/patience.py"}
    assert len(USES) > 40
