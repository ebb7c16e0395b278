"""Nodes of the benchmarks: cameras and a subscriber to commands."""
