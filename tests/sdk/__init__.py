"""Tests of the SDK, the client and the settings."""
