"""A deployment: a name, a version and everything the decorator declared, checked in one place."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sized
from enum import StrEnum
from typing import TypeGuard
from urllib.parse import urlsplit

import msgspec

from treadle.model.errors import InvalidOption
from treadle.model.volume import MAX_VOLUMES, VolumeMount, check_mounts

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HANDLER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(m|mb|mi|mib|g|gb|gi|gib)", re.IGNORECASE)
PYTHON = re.compile(r"(?:python)?3(?:\.(\d{1,2}))?(?:\.\d{1,3})?")
URL = re.compile(r"https?://[^\s\x00-\x1f\x7f\ud800-\udfff]+")
MAX_URL = 2048
MAX_SHOWN = 200  # characters of a value that an error repeats
MAX_RETRIES = 100
MAX_TIMEOUT = 7 * 86400
MAX_TTL = 30 * 86400
MAX_MEMORY = 1024 * 1024  # MiB
MAX_DEFINITION = 1024 * 1024  # bytes of JSON
MAX_GPUS = 16  # names in order of preference
MAX_SECRETS = 256
MAX_LISTED = 1000  # variables, packages, commands or exceptions
MAX_ENV_NAME = 255  # characters
RESERVED_NAMES = frozenset({"id", "public", "latest", "warmup", "batch"})


class DeploymentKind(StrEnum):
    DEPLOYMENT = "deployment"
    DRAFT = "draft"  # the unnamed one that `.put()` uses
    SERVE = "serve"  # the one of a `treadle serve`: its definition is replaced as long as it lasts


STUB_TYPES = {
    DeploymentKind.DEPLOYMENT: "taskqueue/deployment",
    DeploymentKind.DRAFT: "taskqueue",
    DeploymentKind.SERVE: "taskqueue/serve",
}


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a container image is made of.

    `installed` tells for each command how many of the packages are installed before it; empty: all of them.
    `dockerfile` is a whole one, `context_id` the packed source that it copies from.
    """

    python_version: str = "python3"
    python_packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    installed: tuple[int, ...] = ()
    env_vars: dict[str, str] = {}
    base_image: str = ""
    dockerfile: str = ""
    context_id: str = ""


class Autoscaler(msgspec.Struct, frozen=True, kw_only=True):
    """Containers wanted = min(ceil(unfinished / tasks_per_container), max_containers), at least min_containers."""

    max_containers: int = 1
    tasks_per_container: int = 1
    min_containers: int = 0


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The definition of a task queue as the SDK sends it and the server stores it."""

    handler: str  # "package.module:function"
    app: str = ""
    cpu: int = 1000  # millicores
    memory: int = 128  # MiB
    gpus: tuple[str, ...] = ()  # in order of preference
    gpu_count: int = 0
    image: ImageSpec = ImageSpec()
    timeout: int = 3600  # seconds an attempt may run; 0: no limit
    retries: int = 3
    retry_delay: float = 1.0  # seconds before the first retry; doubles, with jitter
    retry_delay_max: float = 60.0
    retry_for: tuple[str, ...] = ()  # exception class names, for display; the child holds the classes
    ttl: int = 0  # seconds a task may wait; 0: no limit
    workers: int = 1
    keep_warm_seconds: int = 10
    max_pending_tasks: int = 10_000
    on_start: str = ""  # function name, for display
    callback_url: str | None = None
    env: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    authorized: bool = True
    autoscaler: Autoscaler = Autoscaler()
    checkpoint_enabled: bool = False
    min_isolation: int = 0  # a level of `container.Isolation`; on less it does not run
    block_network: bool = False  # no way out of the container but to the server


class Image(msgspec.Struct, frozen=True):
    """A resolved image: same id, same bytes."""

    id: str  # hash of everything that matters
    spec_digest: str
    spec: ImageSpec
    python: str  # full version, e.g. "3.11.7"
    lock: str  # requirements with hashes
    created_at: float = 0.0


class ImageUse(msgspec.Struct, frozen=True):
    """An image and a named, active deployment that has it."""

    image_id: str
    workspace_id: int
    name: str
    version: int


class Deployment(msgspec.Struct, frozen=True):
    """A stored queue definition. Beam calls it a stub too; `id` is both ids."""

    id: str
    workspace_id: int
    kind: DeploymentKind
    name: str  # "" for a draft
    version: int  # 0 for a draft
    config: QueueConfig
    source_id: str  # sha256 of the packed source
    image_id: str
    digest: str  # over config, source and image: equal drafts are one
    active: bool
    created_at: float
    updated_at: float
    deleted_at: float | None = None  # gone for users; kept for the tasks that name it

    @property
    def title(self) -> str:
        """How people are told of it: name and version, or the handler of a draft."""
        if self.name:
            return f"{self.name} v{self.version}"
        return f"{self.config.handler} ({'served' if self.kind is DeploymentKind.SERVE else 'draft'})"

    @property
    def served(self) -> bool:
        """Whether somebody serves it now: it always has a container, of the newest code."""
        return self.kind is DeploymentKind.SERVE and self.active

    @property
    def stub_type(self) -> str:
        """What Beam calls its kind."""
        return STUB_TYPES[self.kind]


def newest(deployments: Iterable[Deployment]) -> list[Deployment]:
    """The highest version of each name."""
    found: dict[str, Deployment] = {}
    for deployment in deployments:
        before = found.get(deployment.name)
        if before is None or before.version < deployment.version:
            found[deployment.name] = deployment
    return list(found.values())


def bad(option: str, value: object, allowed: str) -> InvalidOption:
    """The error of an option: its name, the value given, what is allowed."""
    return InvalidOption(f"{option}={shown(value)} is not allowed.", f"Allowed: {allowed}.")


def shown(value: object) -> str:
    """A value that may be anything, as Python writes it, as far as an error should repeat it."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - an integer of many digits, or the __repr__ of a user's class
        return f"<{type(value).__name__}: {type(error).__name__}>"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def parse_cpu(value: object) -> int:
    """Cores as a number 0.1–64 or a millicore string "100m"–"64000m", in millicores."""
    allowed = 'cores from 0.1 to 64, or millicores from "100m" to "64000m"'
    if isinstance(value, str) and re.fullmatch(r"\d{1,6}m", value):
        millicores = int(value[:-1])
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 64:
        millicores = round(value * 1000)
    else:
        raise bad("cpu", value, allowed)
    if not 100 <= millicores <= 64_000:
        raise bad("cpu", value, allowed)
    return millicores


def parse_memory(value: object) -> int:
    """MiB as an integer, or a string with a unit (m mb mi mib g gb gi gib), in MiB rounded up."""
    allowed = 'MiB from 32 to 1048576, or a string such as "512mi" or "2gi"'
    if isinstance(value, str) and (match := MEMORY.fullmatch(value.strip())):
        factor = {"m": 1, "g": 1000}[match[2][0].lower()]
        if match[2].lower() in ("gi", "gib"):
            factor = 1024
        mib = math.ceil(min(float(match[1]), MAX_MEMORY + 1) * factor)
    elif isinstance(value, int) and not isinstance(value, bool):
        mib = value
    else:
        raise bad("memory", value, allowed)
    if not 32 <= mib <= MAX_MEMORY:
        raise bad("memory", value, allowed)
    return mib


def more_memory(peak: int, limit: int) -> str:
    """What to write for `memory` after `peak` bytes were not possible within `limit`: a power of two of MiB above."""
    needed = max(2 * limit, peak * 5 // 4) / 2**20
    mib = min(2 ** math.ceil(math.log2(max(needed, 64))), MAX_MEMORY)
    return f'memory="{mib // 1024}Gi"' if mib >= 1024 else f'memory="{mib}Mi"'


def check_name(name: object) -> str:
    """A deployment name: letters, digits, `.`, `_`, `-`; it is part of the URL."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED_NAMES:
        words = ", ".join(sorted(RESERVED_NAMES))
        raise bad("name", name, f"1-64 letters, digits, '.', '_' or '-', first a letter or digit; not {words}")
    return name


def check_url(option: str, url: object) -> str:
    """An absolute http(s) URL with a host, and without a user name: a webhook is signed, and brings no password."""
    if not isinstance(url, str) or not _is_url(url):
        what = f"an absolute http:// or https:// URL of at most {MAX_URL} characters"
        raise bad(option, url, f"{what}, without user name and password")
    return url


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        fits = len(url) <= MAX_URL and bool(URL.fullmatch(url)) and "@" not in parts.netloc
        return fits and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a host or a port that is none
        return False


def check_count(option: str, values: Sized, most: int) -> None:
    """Refuse a list of more than so many, before anything looks at each of them."""
    if len(values) > most:
        raise InvalidOption(f"{option} with {len(values)} entries is not allowed.", f"Allowed: at most {most}.")


def is_env_name(name: object) -> TypeGuard[str]:
    """Whether an environment variable may have this name."""
    return isinstance(name, str) and ENV_NAME.fullmatch(name) is not None and len(name) <= MAX_ENV_NAME


def _check_env_name(option: str, name: object) -> None:
    if not is_env_name(name):
        raise bad(option, name, f"names of 1-{MAX_ENV_NAME} letters, digits and '_', not starting with a digit")


def check_env(option: str, env: object) -> dict[str, str]:
    """Environment variables: names of letters, digits and `_`; string values."""
    if not isinstance(env, dict):
        raise bad(option, env, "a dict of str to str")
    check_count(option, env, MAX_LISTED)
    for key, value in env.items():
        _check_env_name(option, key)
        if not isinstance(value, str) or "\0" in value:
            raise bad(f"{option}[{key!r}]", value, "a string without NUL")
    return env


def _between(option: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise bad(option, value, f"a number from {low} to {high}")


def check_image(spec: ImageSpec) -> ImageSpec:
    if not PYTHON.fullmatch(spec.python_version):
        raise bad("python_version", spec.python_version, '"python3" or "python3.N", e.g. "python3.12"')
    for option in ("python_packages", "commands", "installed"):
        check_count(option, getattr(spec, option), MAX_LISTED)
    for package in spec.python_packages:
        if not package.strip() or "\n" in package or package.lstrip().startswith("-"):
            raise bad("python_packages", package, 'requirement specifiers such as "numpy" or "pillow>=12"')
    if spec.base_image and spec.dockerfile:
        raise bad("base_image", spec.base_image, "either a base image or a Dockerfile, not both")
    if spec.base_image.startswith("-") or re.search(r"\s", spec.base_image):
        raise bad("base_image", spec.base_image, 'the name of an image, e.g. "docker.io/library/python:3.12-slim"')
    counts = [0, *spec.installed, len(spec.python_packages)]
    if spec.installed and (len(spec.installed) != len(spec.commands) or counts != sorted(counts)):
        raise bad("installed", spec.installed, "a number of packages for each command, none below the one before")
    check_env("env_vars", spec.env_vars)
    return spec


def check_config(config: QueueConfig) -> QueueConfig:
    """Refuse a definition with a value out of range. The SDK calls it at import, the server on receipt.

    Raises:
        InvalidOption: names the option, the value and what is allowed.
    """
    if not HANDLER.fullmatch(config.handler):
        raise bad("handler", config.handler, '"module:function"')
    _between("cpu", config.cpu, 100, 64_000)
    parse_memory(config.memory)
    _check_gpus(config)
    _between("timeout", config.timeout, 0, MAX_TIMEOUT)
    _between("retries", config.retries, 0, MAX_RETRIES)
    _between("retry_delay", config.retry_delay, 0, 86400)
    _between("retry_delay_max", config.retry_delay_max, 0, 86400)
    _between("ttl", config.ttl, 0, MAX_TTL)
    _between("workers", config.workers, 1, 256)
    _between("keep_warm_seconds", config.keep_warm_seconds, 0, 86400)
    _between("max_pending_tasks", config.max_pending_tasks, 1, 10_000_000)
    scale = config.autoscaler
    _between("max_containers", scale.max_containers, 1, 1000)
    _between("tasks_per_container", scale.tasks_per_container, 1, 1_000_000)
    _between("min_containers", scale.min_containers, 0, scale.max_containers)
    _between("min_isolation", config.min_isolation, 0, 3)
    if config.callback_url is not None:
        check_url("callback_url", config.callback_url)
    check_env("env", config.env)
    check_count("retry_for", config.retry_for, MAX_LISTED)
    check_count("secrets", config.secrets, MAX_SECRETS)
    for name in config.secrets:
        _check_env_name("secrets", name)
    check_count("volumes", config.volumes, MAX_VOLUMES)
    check_mounts(config.volumes)
    check_image(config.image)
    return config


def _check_gpus(config: QueueConfig) -> None:
    check_count("gpu", config.gpus, MAX_GPUS)
    for name in config.gpus:
        if len(name) > 64 or not re.search(r"[A-Za-z0-9]", name):
            raise bad("gpu", name, 'the name of a GPU such as "A10G" or "any", at most 64 characters')
    _between("gpu_count", config.gpu_count, int(bool(config.gpus)), 64 if config.gpus else 0)


def spec_digest(spec: ImageSpec) -> str:
    """Equal definitions have equal digests: under this an image is found again without resolving it."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()
