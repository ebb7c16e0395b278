"""Driving without ROS: frame buffer, policies, chunk playback and the checks around them."""
