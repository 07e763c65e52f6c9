"""The runner, run for real against a server in the test."""
