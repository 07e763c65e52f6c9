"""What users write with."""
