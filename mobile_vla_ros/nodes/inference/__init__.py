"""Nodes: inference."""
