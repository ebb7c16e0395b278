"""Bench: record."""
