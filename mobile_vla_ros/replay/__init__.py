"""Replay a recorded episode through the inference path."""
