"""LeRobot data sets (github.com/huggingface/lerobot) in and out, without that library."""
