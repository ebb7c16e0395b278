"""Which command belongs to which frame, and who gave it."""
