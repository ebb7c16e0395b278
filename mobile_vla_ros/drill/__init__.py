"""Fault injection: what is injected and how the stop is judged. No ROS."""
