"""What an episode is worth, and why."""
