"""Bytes: outputs and packed source, behind one protocol."""
