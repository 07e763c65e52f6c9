"""Pure decisions: no time, chance or I/O of their own."""
