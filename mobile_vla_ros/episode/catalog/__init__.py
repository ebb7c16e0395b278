"""A folder of episodes: index, coverage and advice."""
