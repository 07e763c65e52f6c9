"""Tells wrong usage of the command line in one line."""

from __future__ import annotations

from typer._click.exceptions import UsageError

__all__ = ["UsageError", "explain"]


def explain(error: UsageError) -> str:
    """What is wrong and which help says more."""
    command = error.ctx.command_path if error.ctx else "treadle"
    return f"{error.format_message().rstrip('.')}. See `{command} --help`."
