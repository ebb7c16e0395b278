"""Code shared by several nodes."""
