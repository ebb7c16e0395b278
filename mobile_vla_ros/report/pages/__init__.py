"""Pages from plain numbers."""
