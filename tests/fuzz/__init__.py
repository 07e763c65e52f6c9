"""Bad input: whatever comes in, nothing fails but what is refused, and it is refused in one shape."""
