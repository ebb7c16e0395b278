"""Report: pages."""
