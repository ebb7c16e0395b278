"""Benchmarks of driving: guard, latency, cost of a step."""
