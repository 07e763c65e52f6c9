"""Frozen nouns and wire messages, and the errors users read."""
