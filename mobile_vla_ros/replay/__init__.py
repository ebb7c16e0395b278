"""A recorded episode through the live inference path."""
