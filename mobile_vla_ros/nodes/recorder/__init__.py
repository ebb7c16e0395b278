"""Nodes: recorder."""
