"""Tests of the agent: decisions as tables, archives, and a real agent against a real WebSocket server."""
