"""Benchmarks of the training: encodes, data feed, memory, full size."""
