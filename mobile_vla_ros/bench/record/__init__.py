"""Benchmarks of recording: load, encoding, full disk, kill."""
