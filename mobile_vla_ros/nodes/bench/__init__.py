"""Nodes that the benchmarks start: a camera and a source of commands."""
