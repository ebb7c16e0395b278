"""Report: figures."""
