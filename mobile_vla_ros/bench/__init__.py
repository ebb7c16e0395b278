"""Benchmarks of the package's promises."""
