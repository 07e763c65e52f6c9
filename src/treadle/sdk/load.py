"""Finds a task queue in the user's file: imports it as a container would, and says what is wrong with it."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from treadle.model.errors import InvalidInput, TreadleError
from treadle.sdk.definition import locate
from treadle.sdk.task_queue import TaskQueue

FORM = "Name a function in a file: FILE.py:FUNC, e.g. app.py:handler"
ALIASES = Path(__file__).parents[1] / "aliases"


def find_queue(target: str) -> TaskQueue[..., object]:
    """The task queue that `FILE.py:FUNC` names.

    Raises:
        InvalidInput: says which part of it is wrong and what there is instead.
    """
    path, function = find_file(target)
    module = import_file(path)
    value = getattr(module, function, None)
    if isinstance(value, TaskQueue):
        return value
    what = "has no function" if value is None else "is not a task queue in"
    names = _names(module)
    advice = f"Task queues there: {', '.join(names)}." if names else "Decorate one with @task_queue."
    if value is None:
        raise InvalidInput(f"{path} {what} {function!r}.", advice)
    raise InvalidInput(f"{function!r} {what} {path}.", f"Decorate it with @task_queue. {advice}" if names else advice)


def target_of(func: Callable[..., Any]) -> str:
    """The `FILE.py:FUNC` that names a function, as `find_queue` takes it.

    Raises:
        InvalidOption: it is not at the top of a module below the working directory.
    """
    root = Path.cwd()
    locate(func, root)
    file = Path(inspect.unwrap(func).__code__.co_filename).resolve()
    return f"{file.relative_to(root.resolve())}:{func.__name__}"


def find_file(target: str) -> tuple[Path, str]:
    """The file and the function that `FILE.py:FUNC` names.

    Raises:
        InvalidInput: it has another form, or there is no such file.
    """
    file, colon, function = target.rpartition(":")
    if not colon:
        file, function = target, ""
    path = Path(file)
    if not function or not file.endswith(".py"):
        found = f"; task queues there: {_listed(path)}" if path.suffix == ".py" and path.is_file() else ""
        raise InvalidInput(f"{target!r} does not name a function.", f"{FORM}{found}.")
    if not path.is_file():
        raise InvalidInput(f"There is no file {file!r} in {Path.cwd()}.", f"{FORM}.")
    return path, function


def import_file(path: Path) -> ModuleType:
    """Import a file below the working directory under the name by which a container imports it.

    Raises:
        InvalidInput: it cannot be imported; the message names the error and the line.
    """
    root, file = Path.cwd(), path.resolve()
    if not file.is_relative_to(root.resolve()):
        raise InvalidInput(f"{path} is not below the working directory {root}.", f"Run this from {file.parent}.")
    name = ".".join(file.relative_to(root.resolve()).with_suffix("").parts)
    _check_module_name(name, path)
    sys.path.insert(0, str(root))
    sys.path.append(str(ALIASES))
    os.environ["TREADLE_IMPORTING_USER_CODE"] = "true"  # `.put()` at the top of the file must do nothing
    try:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None, "a .py file has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code may raise anything, SystemExit included
        raise _import_error(path, file, error) from error
    finally:
        del os.environ["TREADLE_IMPORTING_USER_CODE"]


def _check_module_name(name: str, path: Path) -> None:
    """Refuse a file that a container could not import, or would not: another module has its name."""
    for part in name.split("."):
        if not part.isidentifier():
            advice = "Rename it: letters, digits and '_' can be imported."
            raise InvalidInput(f"{path} cannot be imported: {part!r} is no name of a module.", advice)
    if name in sys.stdlib_module_names:
        raise InvalidInput(f"{path} has the name of Python's own module {name!r}.", "Rename it.")


def _import_error(path: Path, file: Path, error: BaseException) -> InvalidInput:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(file) else (lines or [None])[-1]
    where = f"{path}:{line}" if line else str(path)
    if isinstance(error, TreadleError):
        return InvalidInput(f"{where}: {error.message}", error.advice)
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    message = f"{where}: {type(error).__name__}{f': {text}' if text else ''}."
    return InvalidInput(message.replace("..", "."), _advice(error))


def _advice(error: BaseException) -> str:
    if isinstance(error, ImportError) and error.name in ("beam", "beta9"):
        return "Treadle does not have this part of Beam yet."
    if isinstance(error, ModuleNotFoundError):
        return (
            "If only the container has it (Image(python_packages=…)), import it inside the function "
            "or under `if treadle.env.is_remote():`."
        )
    return "Correct it; the file must import without errors."


def _names(module: ModuleType) -> list[str]:
    return sorted(name for name, value in vars(module).items() if isinstance(value, TaskQueue))


def _listed(path: Path) -> str:
    return ", ".join(_names(import_file(path))) or "none"
