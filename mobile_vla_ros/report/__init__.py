"""Pages and figures, independent of ROS, torch and the arena."""
