"""Nodes: bench."""
