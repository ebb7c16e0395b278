"""Policies beside baselines that see no image."""
