"""Closed-loop trials in the arena, in process or through live nodes."""
