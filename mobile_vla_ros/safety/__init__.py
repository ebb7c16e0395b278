"""The guard's state machine and its limits: pure, no ROS, no network, no clock."""
