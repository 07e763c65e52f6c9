"""Turns what the decorator was given into the checked definition of a queue."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from treadle.model.deployment import Autoscaler, QueueConfig, bad, check_config, parse_cpu, parse_memory
from treadle.model.errors import InvalidOption
from treadle.model.volume import VolumeMount
from treadle.sdk.image import Image
from treadle.sdk.options import QueueDepthAutoscaler, TaskPolicy
from treadle.sdk.volume import Volume

NOT_YET = ("disks", "inputs", "outputs", "on_deploy", "pricing")
HOSTED = ("pool", "allow_marketplace")


def define(func: Callable[..., Any], given: dict[str, Any]) -> QueueConfig:
    """The definition of the queue around `func`; `given` holds every parameter of the decorator but `name`.

    Raises:
        InvalidOption: names the option, the value and what is allowed.
    """
    _refuse_unavailable(given)
    policy = _of_kind("task_policy", given["task_policy"], TaskPolicy, TaskPolicy())
    gpus = _gpus(given["gpu"])
    config = QueueConfig(
        handler=f"{func.__module__}:{func.__name__}",
        app=_of_kind("app", given["app"], str, ""),
        cpu=parse_cpu(given["cpu"]),
        memory=parse_memory(given["memory"]),
        gpus=gpus,
        gpu_count=_gpu_count(given["gpu_count"], gpus),
        image=_of_kind("image", given["image"], Image, Image()).spec,
        timeout=max(0, _whole("timeout", policy.timeout or given["timeout"])),
        retries=_whole("retries", policy.max_retries or given["retries"]),
        retry_delay=policy.retry_delay,
        retry_delay_max=policy.retry_delay_max,
        retry_for=tuple(kind.__name__ for kind in exception_classes(given["retry_for"])),
        ttl=_whole("ttl", policy.ttl),
        workers=max(1, _whole("workers", given["workers"])),
        keep_warm_seconds=_seconds("keep_warm_seconds", given["keep_warm_seconds"]),
        max_pending_tasks=_whole("max_pending_tasks", given["max_pending_tasks"]),
        on_start=_on_start(given["on_start"]),
        callback_url=given["callback_url"],
        env=_of_kind("env", given["env"], dict, {}),
        secrets=_secrets(given["secrets"]),
        volumes=_volumes(given["volumes"]),
        authorized=_flag("authorized", given["authorized"]),
        autoscaler=_autoscaler(given["autoscaler"]),
        checkpoint_enabled=_flag("checkpoint_enabled", given["checkpoint_enabled"]),
        min_isolation=_whole("min_isolation", given["min_isolation"]),
        block_network=_flag("block_network", given["block_network"]),
    )
    return check_config(config)


def locate(func: Callable[..., Any], root: Path) -> str:
    """The handler "package.module:function" by which a container that starts in `root` finds the function.

    Raises:
        InvalidOption: the function is not at the top of a module below `root`.
    """
    if func.__qualname__ != func.__name__:
        raise InvalidOption(
            f"{func.__qualname__} is defined inside another function or class.", "Move it to the top of its module."
        )
    file = Path(inspect.unwrap(func).__code__.co_filename).resolve()
    if not file.is_file():
        raise InvalidOption(f"{func.__name__} is not defined in a file.", "Put it into a .py file and import it.")
    if not file.is_relative_to(root.resolve()):
        raise InvalidOption(f"{file} is not below the working directory {root}.", f"Run this from {file.parent}.")
    parts = file.relative_to(root.resolve()).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    for part in parts:
        if not part.isidentifier():
            advice = "Rename it: letters, digits and '_' can be imported."
            raise InvalidOption(f"{file} cannot be imported: {part!r} is no name of a module.", advice)
    return f"{'.'.join(parts)}:{func.__name__}"


def exception_classes(value: object) -> tuple[type[BaseException], ...]:
    """The classes of `retry_for`."""
    if value is None:
        return ()
    classes = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise bad("retry_for", one, "a list of exception classes, e.g. [ConnectionError, TimeoutError]")
    return classes


def _refuse_unavailable(given: dict[str, Any]) -> None:
    """Nothing that was asked for may be ignored in silence."""
    for option in NOT_YET:
        if given[option]:
            raise InvalidOption(f"{option} is not available yet.", f"Leave {option} out.")
    for option in HOSTED:
        if given[option]:
            reason = "it belongs to Beam's hosted service"
            raise InvalidOption(f"{option}={given[option]!r} is not available: {reason}.", f"Leave {option} out.")


def _of_kind(option: str, value: Any, kind: type[Any], default: Any) -> Any:
    """The value if it is of this kind; None asks for the default."""
    if value is None:
        return default
    if not isinstance(value, kind):
        raise bad(option, value, f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}")
    return value


def _whole(option: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad(option, value, "a whole number")
    return value


def _seconds(option: str, value: object) -> int:
    """Any number, rounded up; below zero counts as zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad(option, value, "a number of seconds from 0 to 86400")
    return max(0, math.ceil(value))


def _flag(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise bad(option, value, "True or False")
    return value


def _gpus(value: object) -> tuple[str, ...]:
    """GPU names in order of preference."""
    names = [value] if isinstance(value, str) else value
    if value is None:
        return ()
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise bad("gpu", value, 'the name of a GPU such as "A10G", or a list of names')
    return tuple(str.__str__(name) for name in names if name)


def _secrets(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise bad("secrets", value, 'a list of names of secrets, e.g. ["DATABASE_URL"]')
    return tuple(dict.fromkeys(value))


def _volumes(value: object) -> tuple[VolumeMount, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or not all(isinstance(one, Volume) for one in value):
        raise bad("volumes", value, 'a list of Volumes, e.g. [Volume("weights", "./weights")]')
    return tuple(one.mount for one in value)


def _gpu_count(value: object, gpus: tuple[str, ...]) -> int:
    count = _whole("gpu_count", value)
    if count and not gpus:
        raise bad("gpu_count", count, "0 unless gpu names what kind")
    return count or int(bool(gpus))


def _on_start(value: object) -> str:
    if value is None:
        return ""
    if not callable(value):
        raise bad("on_start", value, "a function")
    return str(getattr(value, "__name__", type(value).__name__))


def _autoscaler(value: object) -> Autoscaler:
    scale = _of_kind("autoscaler", value, QueueDepthAutoscaler, QueueDepthAutoscaler())
    return Autoscaler(
        max_containers=_whole("max_containers", scale.max_containers),
        tasks_per_container=_whole("tasks_per_container", scale.tasks_per_container),
        min_containers=_whole("min_containers", scale.min_containers),
    )
