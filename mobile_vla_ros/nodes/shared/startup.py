"""
Shutdown during startup.

Imports neither ROS nor numpy: an executable calls this before anything that takes time.
"""

import os
import signal


def end_quietly() -> None:
    """
    End the process with status 0 at SIGINT and SIGTERM, without a traceback.

    For the executables of `nodes/`, whose imports take up to seconds; ``run`` replaces the
    handlers once there is a node. Main thread only.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
