"""The names that an app written for Beam imports from `beam` or `beta9`; `aliases/` serves them under those names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import treadle

_ONLY_BEAMS = ("PythonVersion", "GpuType")  # a plain string does in Treadle
NAMES = [*(name for name in treadle.__all__ if name != "__version__"), *_ONLY_BEAMS]


def lookup(name: str) -> Any:
    """The object of this name, loaded on first use."""
    if name in _ONLY_BEAMS:
        return getattr(import_module("treadle.sdk.options"), name)
    if name in NAMES:
        return getattr(treadle, name)
    raise AttributeError(f"Treadle does not have Beam's {name!r} yet; it has {', '.join(NAMES)}.")
