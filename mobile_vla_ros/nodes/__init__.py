"""Thin ROS nodes; the only package that imports rclpy."""

import os
import signal
import sys
from pathlib import Path

# A node takes up to seconds of imports before `common.run` listens for its end: whoever ends it
# meanwhile reads no traceback. Who merely imports us keeps the signals as they are: only
# `python -m`, which has this name as long as it looks for its module, and an executable of ours,
# which has the name of its module, are nodes.
if sys.argv[0] == '-m' or Path(__file__).with_name(f'{Path(sys.argv[0]).name}.py').is_file():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
