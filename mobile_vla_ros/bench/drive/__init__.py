"""Bench: drive."""
