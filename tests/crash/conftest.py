"""The power shim is tried out where fsync costs nothing."""

from engine.conftest import quick_folder

__all__ = ["quick_folder"]
