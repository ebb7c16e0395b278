"""Driving without ROS: the frame buffer, the policy protocol and chunk playback."""
