"""One per machine: starts and stops containers."""
