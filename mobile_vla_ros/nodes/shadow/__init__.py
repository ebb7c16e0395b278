"""Nodes: shadow."""
