"""Tests of `treadle.server`."""
