"""Teleoperation by keyboard and joystick, and the console."""
