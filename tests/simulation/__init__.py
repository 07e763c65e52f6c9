"""A seeded world around the real engine, and the promises it must keep in it."""
