"""A secret: a named value of a workspace that containers find in their environment; what is allowed of both."""

from __future__ import annotations

import msgspec

from treadle.model.deployment import MAX_ENV_NAME, bad, is_env_name
from treadle.model.errors import InvalidOption

MAX_VALUE = 64 * 1024  # bytes of UTF-8; Linux takes 128 KiB for a variable together with its name


class Secret(msgspec.Struct, frozen=True):
    """As it is stored. `sealed` is the encrypted value, which opens for this workspace and name alone."""

    workspace_id: int
    name: str
    sealed: bytes
    created_at: float
    updated_at: float


def check_secret_name(name: object) -> str:
    """A name that an environment variable may have."""
    if not is_env_name(name):
        raise bad("secret name", name, f"1-{MAX_ENV_NAME} letters, digits and '_', not starting with a digit")
    return name


def check_secret_value(name: str, value: str) -> str:
    """A text that an environment variable can hold. The error does not repeat it."""
    size = len(value.encode(errors="surrogatepass"))
    if not value or "\0" in value or size > MAX_VALUE or not _is_unicode(value):
        raise InvalidOption(
            f"The value given for secret {name} ({size} bytes) is not allowed.",
            f"Allowed: 1 to {MAX_VALUE} bytes of UTF-8 text without NUL.",
        )
    return value


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in text)
