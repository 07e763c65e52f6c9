"""The contract of stores."""
