"""Episode files: layout, writing, reading and recovery."""
