"""The `treadle` command: what goes wrong is told in one line, and the exit code says that it did."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from treadle.lines import tamed
from treadle.model.errors import TreadleError


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    exit_with(partial(_command, sys.argv[1:] if args is None else args))


def exit_with(action: Callable[[], int]) -> NoReturn:
    """Exit with the code of what is done here: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    code = _told(action)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone (`| head`); nothing may be flushed again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _told(action: Callable[[], int]) -> int:
    try:
        return action()
    except KeyboardInterrupt:
        return 130
    except TreadleError as error:
        return _fail(str(error), 1)
    except UnicodeEncodeError as error:  # bytes of an argument that are no text, as Python keeps them
        return _fail(f"{error.object!r} is not text in UTF-8. Write it anew.", 1)
    except (OSError, ImportError) as error:  # a file, a port, a missing part: the message says which
        return _fail(str(error), 1)


def _command(args: Sequence[str]) -> int:
    from typer import Abort  # noqa: PLC0415 - loaded with the commands, not by whoever imports this package
    from typer.exceptions import TyperException  # noqa: PLC0415
    from typer.main import get_command  # noqa: PLC0415

    from treadle.cli.app import app  # noqa: PLC0415
    from treadle.cli.usage import told  # noqa: PLC0415

    try:
        given = list(args) or ["--help"]
        return int(get_command(app).main(args=given, prog_name="treadle", standalone_mode=False) or 0)
    except TyperException as error:
        return _fail(told(error), error.exit_code)
    except Abort:
        return 130


def _fail(message: str, code: int) -> int:
    print(tamed(f"error: {message}", sys.stderr), file=sys.stderr)
    return code
