"""The arena as a robot, and the runner of its trials."""
