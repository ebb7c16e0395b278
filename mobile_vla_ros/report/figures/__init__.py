"""Figures as SVG text or PNG files."""
