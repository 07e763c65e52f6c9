"""Stands in for `beta9`, so that an app written for it runs unchanged; a real `beta9` on the path comes first."""

from treadle.sdk import beam as _names

__all__ = [*_names.NAMES]
__getattr__ = _names.lookup
