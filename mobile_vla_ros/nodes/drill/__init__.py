"""Nodes: drill."""
