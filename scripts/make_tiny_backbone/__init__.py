"""Trains `builtin:tiny`, the small backbone that ships with the package; see `__main__.py`."""
