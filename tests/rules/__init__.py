"""Tests of `treadle.rules`."""
