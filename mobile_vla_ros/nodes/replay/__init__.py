"""Nodes: replay."""
