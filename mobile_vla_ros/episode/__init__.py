"""What an episode is: its file, its verdict, its timing, and folders of episodes."""
