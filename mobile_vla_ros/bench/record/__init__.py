"""Benchmarks of the recording: load, encoding, a full disk, a kill."""
