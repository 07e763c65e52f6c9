"""`treadle serve`: a function in a file becomes a URL while it is written."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from treadle.sdk.console import Console
from treadle.sdk.load import FORM, find_file


def serve(
    target: Annotated[str, typer.Argument(metavar="FILE.py:FUNC", help=f"{FORM}.", show_default=False)],
    timeout: Annotated[
        float, typer.Option("--timeout", "-t", metavar="SECONDS", help="End after so long without a save; 0: never.")
    ] = 0,
) -> None:
    """Serve a task queue while you write it. Saving a file reloads it, and Ctrl-C ends it."""
    from treadle.sdk import serving  # noqa: PLC0415 - `treadle --help` has no use for it

    find_file(target)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    serving.serve(target, Console(), timeout)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
