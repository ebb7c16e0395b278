"""Bench: train."""
