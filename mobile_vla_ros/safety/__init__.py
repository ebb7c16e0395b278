"""The guard's state machine, limits and checks: pure logic without ROS, torch or clocks."""
