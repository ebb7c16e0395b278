"""Benchmarks of the drive: the guard, the latency and the cost of a step."""
