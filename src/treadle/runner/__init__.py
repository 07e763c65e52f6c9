"""The program in a container."""
