"""An environment variable that is another for each task."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None)


class Variable:
    """Sets one variable again and again, for this process and what it starts, in the same memory.

    `os.environ[name] = value` calls setenv(3), and glibc keeps every value that it was ever given: a hundred bytes a
    task, until the container has no memory left. putenv(3) makes a string of the caller's a part of the environment.
    """

    def __init__(self, name: str, size: int = 255) -> None:
        self._name = name
        self._text = ctypes.create_string_buffer(len(name) + size + 2)

    def set(self, value: str) -> None:
        """Raises ValueError: it has more than `size` bytes."""
        self._text.value = f"{self._name}={value}".encode()
        _libc.putenv(self._text)  # again: user code may have put another in its place
        known = os.environ
        known._data[known.encodekey(self._name)] = known.encodevalue(value)  # type: ignore[attr-defined]
