"""Pages and figures; knows nothing of ROS, torch or the arena."""
