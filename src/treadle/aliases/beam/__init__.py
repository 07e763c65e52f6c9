"""Stands in for `beam`, so that an app written for it runs unchanged; a real `beam` on the path comes first."""

from treadle.sdk import beam as _names

__all__ = [*_names.NAMES]
__getattr__ = _names.lookup
