"""Report: build."""
