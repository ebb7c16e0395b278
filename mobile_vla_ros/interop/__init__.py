"""Episodes in other layouts, in and out."""
