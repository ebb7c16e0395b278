"""Nodes: guard."""
