"""What users are told when something is wrong reads the same wherever it comes from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tidy.reading import shown, sources
from treadle.model.errors import BY_CODE

KINDS = {kind.__name__ for kind in BY_CODE.values()}
VALUE = "…"  # stands for what is filled in
# Beam's clients match the first; the second begin with an option or a setting as it is written in code
FIXED = re.compile(r"invalid (request payload|stub id|output id)|exceeded max pending tasks: |[a-z_]+=|python_packages ")


def messages() -> Iterator[tuple[str, str]]:
    """Where an error is made, and its message, as far as it is written there."""
    for path in sources("src"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
                yield f"{shown(path)}:{node.lineno}", _text(node.args[0])


def _text(argument: ast.expr) -> str:
    match argument:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_text, parts))
        case _:
            return VALUE


@pytest.mark.parametrize(("where", "message"), list(messages()), ids=lambda value: value.split(":")[0])
def test_a_message_is_a_sentence(where: str, message: str) -> None:
    """It begins with a capital letter or a value, and ends with a full stop or with what somebody else has said."""
    if not FIXED.match(message):
        assert not message[0].islower(), f"{where}: {message!r} begins in lower case"
        assert message.endswith((".", VALUE)), f"{where}: {message!r} has no full stop"
