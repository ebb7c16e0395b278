"""Benchmarks of training: encodes, data feed, memory, full size."""
