"""Gather the numbers of a page and write it."""
