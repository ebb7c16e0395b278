"""
What a process does before its heavy imports: quiet shutdown, real-time priority.

Imports neither ROS nor numpy.
"""

import os
import signal
import sys

# Above all ordinary processes, below what robot drivers usually request.
PRIORITY = 5
# How long one Python thread may keep the others waiting.
SWITCH_S = 0.001


def end_quietly() -> None:
    """
    End the process with status 0 at SIGINT, SIGTERM and SIGQUIT, without a traceback.

    For the executables of `nodes/`, whose imports last up to seconds; ``run`` replaces the
    handlers once there is a node. Main thread only.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: os._exit(0))


def request_realtime_priority() -> str:
    """
    Request SCHED_RR; return a sentence describing the result.

    The kernel grants it to root, with CAP_SYS_NICE and under a limit `rtprio`; other processes
    continue at ordinary priority. Threads started later inherit it.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError:
        return f'ordinary priority (a limit rtprio of {PRIORITY} would allow real-time priority)'
    return f'real-time priority {PRIORITY}'
