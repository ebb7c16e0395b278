"""Plots and overlays as images."""
