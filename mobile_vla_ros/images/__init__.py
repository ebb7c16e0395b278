"""Images: stored bytes, and camera messages."""
