"""What a take is on disk: schema, writer, reader, timeline and verdict. No ROS, no torch."""
