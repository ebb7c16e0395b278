"""Benchmarks of what the package promises."""
