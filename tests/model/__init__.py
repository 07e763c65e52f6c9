"""Tests of `treadle.model`."""
