"""How the commands show their usage, and the one line they say when it was wrong."""

from __future__ import annotations

from typer import BadParameter, Context, TyperException
from typer.core import TyperCommand, TyperOption

from treadle.model.settings import ALLOWED


class Command(TyperCommand):
    """A command whose usage names required arguments without braces: `FILE.py:FUNC`, as they are typed."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:  # type: ignore[override]
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


def told(error: TyperException) -> str:
    """The message for a wrong command line."""
    message = _wrong_value(error) or error.format_message()
    if message[-1] not in ".?!":
        message += "."
    context = getattr(error, "ctx", None)  # wrong usage has one
    command = context.command_path if context else "treadle"
    return f"{message} See `{command} --help`."


def _wrong_value(error: TyperException) -> str:
    """`--limit='0' is not allowed. Allowed: …`; "" for any other error."""
    problems = getattr(error.__cause__, "errors", None)  # of pydantic, which typer has read the value with
    if not isinstance(error, BadParameter) or not isinstance(error.param, TyperOption) or problems is None:
        return ""
    option = max(error.param.opts, key=len)
    return f"{option}={problems()[0]['input']!r} is not allowed. Allowed: {_allowed(error.param)}."


def _allowed(option: TyperOption) -> str:
    if option.name in ALLOWED:  # a flag that sets a setting
        return ALLOWED[option.name][1]
    kind = "a whole number" if option.type_descriptor.annotation is int else "a number"
    if option.min is not None and option.max is not None:
        return f"{kind} from {option.min} to {option.max}"
    return kind if option.min is None else f"{kind} from {option.min}"
