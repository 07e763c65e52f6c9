"""Treadle runs Python functions as serverless task queues on machines you own.

Names load on first use, so that `import treadle` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors and type checkers know the names; a test holds this to the table below
    from treadle.model.errors import TreadleError as TreadleError
    from treadle.sdk import env as env
    from treadle.sdk.context import FunctionContext as FunctionContext
    from treadle.sdk.handle import TaskHandle as TaskHandle
    from treadle.sdk.image import Image as Image
    from treadle.sdk.options import QueueDepthAutoscaler as QueueDepthAutoscaler
    from treadle.sdk.options import TaskPolicy as TaskPolicy
    from treadle.sdk.output import Output as Output
    from treadle.sdk.task_queue import task_queue as task_queue
    from treadle.sdk.volume import Volume as Volume

__version__ = "0.1.0"

_HOMES = {
    "task_queue": "treadle.sdk.task_queue",
    "Image": "treadle.sdk.image",
    "Output": "treadle.sdk.output",
    "Volume": "treadle.sdk.volume",
    "TaskPolicy": "treadle.sdk.options",
    "QueueDepthAutoscaler": "treadle.sdk.options",
    "TaskHandle": "treadle.sdk.handle",
    "FunctionContext": "treadle.sdk.context",
    "env": "treadle.sdk.env",
    "TreadleError": "treadle.model.errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "env":
        return import_module("treadle.sdk.env")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'treadle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
