"""Measure a policy against baselines that see no image, and against itself without its inputs."""
