"""Nodes: sim."""
