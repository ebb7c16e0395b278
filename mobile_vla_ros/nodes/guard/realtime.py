"""Asks the kernel to let a process run when its time comes; light, so that it can come first."""

import os
import sys

# Above everything of ordinary priority, below what a robot's drivers ask for.
PRIORITY = 5
# How long one thread of Python may keep the others waiting.
SWITCH_S = 0.001


def ask_for_punctuality() -> str:
    """
    Ask for real-time turns, and return what came of it, in words.

    Given to root, to CAP_SYS_NICE and under a limit `rtprio`; refused to others, who go on at
    ordinary priority. Threads made later inherit them.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError:
        return f'ordinary priority (a limit rtprio of {PRIORITY} would give real-time turns)'
    return f'real-time turns, priority {PRIORITY}'
