"""Replay: an episode published again, for the live inference node."""
