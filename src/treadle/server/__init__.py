"""HTTP and links: parse, call the engine, encode."""
