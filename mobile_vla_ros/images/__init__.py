"""Images as stored bytes and as camera messages."""
