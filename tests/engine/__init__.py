"""Tests of `treadle.engine`."""
