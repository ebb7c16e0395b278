"""Takes of other layouts, in and out."""
