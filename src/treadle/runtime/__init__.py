"""How a container is started and held."""
