"""The decorator that turns a function into a task queue."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

import msgspec

from treadle.model.api import Deployed
from treadle.model.deployment import QueueConfig, check_name
from treadle.model.errors import InvalidOption
from treadle.sdk import env as environment
from treadle.sdk.definition import define, exception_classes, locate
from treadle.sdk.image import Image
from treadle.sdk.options import QueueDepthAutoscaler, TaskPolicy
from treadle.sdk.volume import Volume

if TYPE_CHECKING:  # what only `.put()` and `.deploy()` need is loaded by them: importing an app stays cheap
    from treadle.sdk.console import Console
    from treadle.sdk.handle import TaskHandle
    from treadle.sdk.prepared import Prepared

MANY = 1000  # tasks a request of `put_many`
_to_json = json.JSONEncoder(allow_nan=False).encode
P = ParamSpec("P")
R = TypeVar("R")


class TaskQueue(Generic[P, R]):
    """A function with a queue in front. `func` is the function itself, `config` the checked definition."""

    def __init__(self, func: Callable[P, R], given: dict[str, Any]) -> None:
        if not callable(func) or not hasattr(func, "__code__"):
            raise InvalidOption(f"@task_queue cannot decorate {func!r}.", "Decorate a function (def or async def).")
        functools.update_wrapper(self, func)
        self.func = func
        self.name = check_name(given["name"]) if given["name"] is not None else None
        self.config: QueueConfig = define(func, given)
        self.on_start: Callable[..., Any] | None = given["on_start"]
        self.retry_for: tuple[type[BaseException], ...] = exception_classes(given["retry_for"])
        self.context: Path | None = given["image"].context if given["image"] else None
        self._draft: Prepared | None = None
        self._lock = threading.Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, which only a container does directly."""
        if environment.is_local():
            name = self.func.__name__
            raise NotImplementedError(
                f"{name} is a task queue: use {name}.put(...) to enqueue a task, or {name}.local(...) to run it here."
            )
        return self.func(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in this process, anywhere."""
        return self.func(*args, **kwargs)

    def put(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle | Literal[False]:
        """Enqueue a task with these arguments; False while this module is being imported by Treadle.

        The first call in a process builds the image, syncs the working directory and makes a draft deployment. In a
        container the draft has the container's own source, and its image must have been built before.

        Raises:
            TypeError: the arguments are not JSON.
            TreadleError: the task was not accepted; the message says why.
        """
        if environment.called_on_import():
            return False
        payload = self._encode({"args": args, "kwargs": kwargs})
        return self._drafted().put(payload)

    def put_many(self, calls: Iterable[Any]) -> list[TaskHandle]:
        """Enqueue many tasks with few requests, in order; an empty list while Treadle imports this module.

        Each call is a tuple of positional arguments, a dict of named ones, or else the one positional argument.
        They are sent MANY at a time, each lot accepted whole or not at all.

        Raises:
            TypeError: the arguments are not JSON; nothing of their lot was sent.
            TreadleError: a lot was not accepted; those before it were.
        """
        if environment.called_on_import():
            return []
        from treadle.sdk.console import Console  # noqa: PLC0415 - see the top of the file

        draft, handles, waiting = self._drafted(), [], iter(calls)
        while lot := [_arguments(call) for call in islice(waiting, MANY)]:
            handles += draft.put_lot(self._encode(lot))
        Console().step(f"Enqueued {len(handles)} tasks")
        return handles

    def warmup(self) -> None:
        """Have a container ready for `keep_warm_seconds`, so that the next `put` finds it; nothing while imported.

        Raises:
            TreadleError: no container can be started now; the message says why.
        """
        if environment.called_on_import():
            return
        draft = self._drafted()
        draft.client.warm_up(draft.queue)

    def deploy(self, name: str | None = None) -> Deployed:
        """Make a new version under this name (or the decorator's).

        Raises:
            InvalidOption: there is no name, or one that cannot be part of a URL.
        """
        from treadle.sdk.console import Console  # noqa: PLC0415 - see the top of the file

        return self.deploy_with(Console(), name).deployed

    def serve(self, timeout: float = 0, url_type: str = "") -> None:
        """Serve this while it is written, as `treadle serve` does, until Ctrl-C; nothing while it is imported.

        Ends after `timeout` seconds without a save if that is above 0. `url_type` may be "path".

        Raises:
            InvalidOption: this is a container, or the function is not at the top of a file of the source.
            TreadleError: it cannot be served; the message says why.
        """
        if environment.called_on_import():
            return
        if environment.is_remote():
            raise InvalidOption("A container cannot serve its source.", "Call .serve() where the code is written.")
        if url_type not in ("", "path"):
            raise InvalidOption(f"url_type={url_type!r} is not allowed.", 'Allowed: "path"; a queue has no host.')
        from treadle.sdk.console import Console  # noqa: PLC0415 - see the top of the file
        from treadle.sdk.load import target_of  # noqa: PLC0415
        from treadle.sdk.serving import serve  # noqa: PLC0415

        serve(target_of(self.func), Console(), timeout)

    def deploy_with(self, console: Console, name: str | None = None) -> Prepared:
        """Like `deploy`, with the console that its lines go to; also returns the client used."""
        chosen = name or self.name
        if not chosen:
            raise InvalidOption("The deployment has no name.", "Give one: --name NAME, or name= in the decorator.")
        return self._prepare(console, name=check_name(chosen))

    def _drafted(self) -> Prepared:
        if self._draft is None:
            from treadle.sdk.console import Console  # noqa: PLC0415 - see the top of the file

            with self._lock:
                self._draft = self._draft or self._prepare(Console(), name="")
        return self._draft

    def _prepare(self, console: Console, *, name: str) -> Prepared:
        from treadle.model.settings import load  # noqa: PLC0415 - see the top of the file
        root = environment.source_folder()
        config = msgspec.structs.replace(self.config, handler=locate(self.func, root))
        if environment.is_remote():
            from treadle.sdk.prepared import borrow  # noqa: PLC0415

            return borrow(config, load(), name=name)
        from treadle.sdk.prepare import prepare  # noqa: PLC0415

        return prepare(config, load(), console, root=root, name=name, context=self.context)

    def _encode(self, payload: Any) -> bytes:
        try:
            return _to_json(payload).encode()
        except (TypeError, ValueError) as error:
            raise TypeError(f"The arguments of {self.func.__name__}.put() must be JSON: {error}.") from None


def _arguments(call: Any) -> dict[str, Any]:
    if isinstance(call, dict):
        return {"args": (), "kwargs": call}
    return {"args": call if isinstance(call, tuple) else (call,), "kwargs": {}}


@overload
def task_queue(func: Callable[P, R], /) -> TaskQueue[P, R]: ...
@overload
def task_queue(
    *,
    app: str = "",
    cpu: float | str = 1.0,
    memory: int | str = 128,
    gpu: str | Sequence[str] = "",
    gpu_count: int = 0,
    image: Image | None = None,
    timeout: int = 3600,
    retries: int = 3,
    workers: int = 1,
    keep_warm_seconds: float = 10,
    max_pending_tasks: int = 10_000,
    on_start: Callable[..., Any] | None = None,
    on_deploy: Callable[..., Any] | None = None,
    callback_url: str | None = None,
    volumes: list[Volume] | None = None,
    disks: list[Any] | None = None,
    secrets: list[str] | None = None,
    env: dict[str, str] | None = None,
    name: str | None = None,
    authorized: bool = True,
    autoscaler: QueueDepthAutoscaler | None = None,
    task_policy: TaskPolicy | None = None,
    checkpoint_enabled: bool = False,
    min_isolation: int = 0,
    block_network: bool = False,
    retry_for: Sequence[type[BaseException]] | None = None,
    pricing: Any = None,
    inputs: Any = None,
    outputs: Any = None,
    pool: Any = None,
    allow_marketplace: bool = False,
) -> Callable[[Callable[P, R]], TaskQueue[P, R]]: ...
def task_queue(
    func: Callable[..., Any] | None = None,
    /,
    *,
    app: str = "",
    cpu: float | str = 1.0,
    memory: int | str = 128,
    gpu: str | Sequence[str] = "",
    gpu_count: int = 0,
    image: Image | None = None,
    timeout: int = 3600,
    retries: int = 3,
    workers: int = 1,
    keep_warm_seconds: float = 10,
    max_pending_tasks: int = 10_000,
    on_start: Callable[..., Any] | None = None,
    on_deploy: Callable[..., Any] | None = None,
    callback_url: str | None = None,
    volumes: list[Volume] | None = None,
    disks: list[Any] | None = None,
    secrets: list[str] | None = None,
    env: dict[str, str] | None = None,
    name: str | None = None,
    authorized: bool = True,
    autoscaler: QueueDepthAutoscaler | None = None,
    task_policy: TaskPolicy | None = None,
    checkpoint_enabled: bool = False,
    min_isolation: int = 0,
    block_network: bool = False,
    retry_for: Sequence[type[BaseException]] | None = None,
    pricing: Any = None,
    inputs: Any = None,
    outputs: Any = None,
    pool: Any = None,
    allow_marketplace: bool = False,
) -> Any:
    """Turn a function into a task queue: `@task_queue`, or `@task_queue(cpu=…, memory=…, …)`.

    Names and defaults are Beam's, but for `max_pending_tasks`; `min_isolation` and `block_network` are our own.
    Values are checked here, when the module is imported.

    Raises:
        InvalidOption: names the option, the value and what is allowed.
    """
    given = dict(locals())
    del given["func"]
    if func is not None:
        return TaskQueue(func, given)
    return lambda decorated: TaskQueue(decorated, given)
