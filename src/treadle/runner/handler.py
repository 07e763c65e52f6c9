"""The user's function: found by its name, prepared once, called for each task."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.runner.failures import NotLoaded, one_line
from treadle.sdk.context import FunctionContext

if TYPE_CHECKING:
    import asyncio

IMPORTING = "TREADLE_IMPORTING_USER_CODE"  # tells the SDK that a module is being loaded to serve, not to submit

preloaded: set[str] = set()  # modules that the zygote has brought and a runner started alone would not have here


class Handler:
    """A function of the user with what its decorator declared; a plain function declares nothing."""

    def __init__(self, target: Any) -> None:
        decorated = hasattr(target, "retry_for")
        self._func: Callable[..., Any] = target.func if decorated else target
        self._loop: asyncio.Runner | None = None
        self.retry_for: tuple[type[BaseException], ...] = tuple(target.retry_for) if decorated else ()
        self.on_start: Callable[[], Any] | None = target.on_start if decorated else None
        self.on_start_value: Any = None
        self.wants_context = _has_context(self._func)

    def start(self) -> None:
        """Run `on_start`, once in the life of the process."""
        if self.on_start is not None:
            self.on_start_value = self._finish(self.on_start())

    def call(self, args: list[Any], kwargs: dict[str, Any], context: FunctionContext | None) -> Any:
        if context is not None:
            kwargs["context"] = context
        return self._finish(self._func(*args, **kwargs))

    def _finish(self, value: Any) -> Any:
        """Await what an `async def` gives; one event loop is kept, so that its connections and locks live on."""
        if not inspect.iscoroutine(value):
            return value
        if self._loop is None:
            import asyncio  # noqa: PLC0415 -- most handlers never need it

            self._loop = asyncio.Runner()
        return self._loop.run(value)

    def unfinished(self) -> int:
        """How many tasks of asyncio `on_start` has left on the event loop."""
        if self._loop is None:
            return 0
        import asyncio  # noqa: PLC0415 -- there already

        return len(asyncio.all_tasks(self._loop.get_loop()))

    def close_loop(self) -> None:
        """Give the event loop up; the next coroutine gets a new one."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


def _has_context(func: Callable[..., Any]) -> bool:
    try:
        return "context" in inspect.signature(func).parameters
    except ValueError:  # some functions written in C have no signature
        return False


def load(name: str, code: str) -> Handler:
    """Import `module:function` from the folder `code` and run its `on_start`.

    Raises:
        NotLoaded: the folder, the module or the function is not usable, or `on_start` raised.
    """
    module_name, function = name.split(":")
    _enter(code)
    module = _import(module_name)
    if not hasattr(module, function):
        raise NotLoaded(f"module {module_name!r} has no function {function!r}. Deploy it again with the right name.")
    target = getattr(module, function)
    if not callable(target):
        raise NotLoaded(f"{name} is not a function but of type {type(target).__name__}.")
    handler = Handler(target)
    try:
        handler.start()
    except BaseException as exc:
        raise NotLoaded(f"on_start of {name} raised {one_line(exc)}") from exc
    return handler


def _enter(code: str) -> None:
    """Make the source the working directory and the first place to import from."""
    try:
        os.chdir(code)
    except OSError as exc:
        raise NotLoaded(f"the source folder {code} cannot be entered: {exc.strerror}") from exc
    if sys.flags.safe_path:
        sys.path.insert(0, code)
    else:
        sys.path[0] = code  # in the place of the directory that the runner was started in
    _make_way(code)


def _make_way(code: str) -> None:
    """Forget what was brought under a name that the source has for a module of its own, such as `secrets`."""
    if preloaded:
        own = {entry.partition(".")[0] for entry in os.listdir(code)}  # noqa: PTH208 -- names are all that is needed
        for name in preloaded:
            if name.partition(".")[0] in own:
                sys.modules.pop(name, None)


def _import(name: str) -> Any:
    os.environ[IMPORTING] = "true"
    try:
        return importlib.import_module(name)
    except BaseException as exc:
        raise NotLoaded(f"importing {name!r} raised {one_line(exc)}") from exc
    finally:
        os.environ.pop(IMPORTING, None)
