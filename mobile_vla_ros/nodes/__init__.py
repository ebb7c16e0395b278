"""The ROS nodes, one executable a module; the only package that imports rclpy."""
