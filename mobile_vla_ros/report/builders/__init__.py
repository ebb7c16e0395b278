"""Collect the numbers of a page and write it."""
