"""Thin ROS nodes; the only package that imports rclpy."""
