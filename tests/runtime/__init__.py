"""Tests of the runtime: a contract suite over every mechanism, and images that are really built."""
