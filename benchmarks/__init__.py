"""Measures Treadle through its public interfaces, with real processes: `make bench`, docs/benchmarks.md."""
