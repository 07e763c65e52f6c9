"""Where the server listens and is found, and who we are: flag, then environment, then config.toml, then default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from treadle.model.api import Credentials
from treadle.model.errors import InvalidInput

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 1994
CONFIG_FILE = "config.toml"
CREDENTIALS_FILE = "credentials.toml"
GRACE_FILE = "grace"  # written by `treadle down --grace`, read by the server that it stops


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is set outside the code. `grace`: seconds running tasks may take when the server stops.

    `url_configured`: somebody named the server, so that none is to be started in its place.
    """

    data: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    url: str = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    token: str = ""
    grace: float = 30.0
    max_body: int = 16 * 1024 * 1024  # bytes
    allow_private_webhooks: bool = False
    allow_loopback_webhooks: bool = False
    retention: float = 7.0  # days that finished tasks are kept
    max_logs: int = 1024  # MiB that all logs together may take
    url_configured: bool = False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_url(value: object) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


ALLOWED: dict[str, tuple[Callable[[object], bool], str]] = {
    "host": (_is_text, "a host name or address"),
    "port": (lambda value: isinstance(value, int) and _is_number(value, 0, 65535), "a whole number from 0 to 65535"),
    "url": (_is_url, "an http:// or https:// URL"),
    "token": (_is_text, "a token"),
    "grace": (lambda value: _is_number(value, 0, 86400), "seconds from 0 to 86400"),
    "max_body": (
        lambda value: isinstance(value, int) and _is_number(value, 1, 1 << 40),
        "a whole number of bytes from 1 to 2^40",
    ),
    "max_logs": (
        lambda value: isinstance(value, int) and _is_number(value, 1, 1 << 30),
        "a whole number of MiB from 1 to 2^30",
    ),
    "retention": (lambda value: _is_number(value, 0, 36500), "days from 0 to 36500"),
    "allow_private_webhooks": (lambda value: isinstance(value, bool), "true or false"),
    "allow_loopback_webhooks": (lambda value: isinstance(value, bool), "true or false"),
}


def _check(shown: str, key: str, value: object) -> Any:
    fits, allowed = ALLOWED[key]
    if not fits(value):
        raise InvalidInput(f"{shown}={value!r} is not allowed.", f"Allowed: {allowed}.")
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, an endless number, nested too deeply
        raise InvalidInput(f"{path} is not valid TOML: {error}.", "Correct the file or remove it.") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", "Correct its permissions.") from None


def _read_config(data: Path) -> dict[str, Any]:
    path = data / CONFIG_FILE
    config = _read_toml(path)
    for key, value in config.items():
        if key not in ALLOWED:
            raise InvalidInput(f"{path}: {key}={value!r}: no such setting.", f"Allowed: {', '.join(ALLOWED)}.")
        _check(f"{path}: {key}", key, value)
    return config


def _read_credentials(data: Path) -> Credentials:
    path = data / CREDENTIALS_FILE
    found = {"url": "", "workspace": "", "token": ""} | _read_toml(path)
    try:
        return msgspec.convert(found, Credentials)
    except msgspec.ValidationError as error:
        advice = "Remove it and start the server, which writes it."
        raise InvalidInput(f"{path} is damaged: {error}.", advice) from None


def data_folder(given: str | Path | None, environ: Mapping[str, str]) -> Path:
    """The folder of all state: the one given, else $TREADLE_DATA, else ~/.treadle."""
    return Path(given or environ.get("TREADLE_DATA") or "~/.treadle").expanduser().absolute()


def load(
    *,
    data: str | Path | None = None,
    host: str | None = None,
    port: int | None = None,
    url: str | None = None,
    token: str | None = None,
    grace: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from the flags given here, the environment, DATA/config.toml, DATA/credentials.toml and defaults.

    Raises:
        InvalidInput: names the file or flag, the key, the value and what is allowed.
    """
    env = os.environ if environ is None else environ
    folder = data_folder(data, env)
    config = _read_config(folder)
    given = {"host": host, "port": port, "url": url, "token": token, "grace": grace}
    flags = {key: _check(f"--{key}", key, value) for key, value in given.items() if value is not None}
    named = {"url": "TREADLE_URL", "token": "TREADLE_TOKEN"}
    variables = {key: _check(name, key, env[name]) for key, name in named.items() if env.get(name)}
    chosen = config | variables | flags
    credentials = _read_credentials(folder)
    configured = "url" in chosen
    where: dict[str, Any] = {"host": DEFAULT_HOST, "port": DEFAULT_PORT} | _listening(chosen.get("url", ""))
    where |= {key: chosen[key] for key in ("host", "port") if key in chosen}
    if "url" not in chosen:
        moved = "host" in flags or "port" in flags
        chosen["url"] = (not moved and credentials.url) or _url_of(where["host"], where["port"])
    chosen["url"] = chosen["url"].rstrip("/")
    chosen.setdefault("token", credentials.token)
    return Settings(data=folder, url_configured=configured, **(chosen | where))


def _listening(url: str) -> dict[str, Any]:
    """A configured URL on this machine also says where a server started here listens."""
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"):
        return {"host": parts.hostname, "port": parts.port or 80}
    return {}


def _url_of(host: str, port: int) -> str:
    """How this machine reaches a server that listens there."""
    host = {"0.0.0.0": DEFAULT_HOST, "::": "::1"}.get(host, host)  # noqa: S104 - "everywhere" includes here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
