"""Nodes: teleop."""
