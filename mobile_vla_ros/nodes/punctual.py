"""Asks the kernel to let a process run when its time comes; light, so that it can come first."""

import ctypes
import os
import platform
import struct
import sys

# Above everything of ordinary priority, below what a robot's drivers ask for.
PRIORITY = 5
# A thread that asks for shorter turns than others gets its turn sooner (Linux 6.12 and newer).
SLICE_NS = 500_000
SCHED_SETATTR = {'x86_64': 314, 'aarch64': 274}
# How long one thread of Python may keep the others waiting.
SWITCH_S = 0.001


def ask_for_punctuality() -> str:
    """
    Ask the kernel to let this process run when its time comes; return what came of it, in words.

    Real-time turns where this user may have them (root, CAP_SYS_NICE, or a limit rtprio);
    otherwise short turns of ordinary priority, which need no rights and which older kernels
    ignore. Threads made later inherit either.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        return f'real-time turns, priority {PRIORITY}'
    except OSError:
        pass
    number = SCHED_SETATTR.get(platform.machine())
    # struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, then in ns: runtime, …
    asked = struct.pack('=IIQiIQQQ', 48, 0, 0, 0, 0, SLICE_NS, 0, 0)
    if number is None or ctypes.CDLL(None).syscall(number, 0, asked, 0) != 0:
        return 'ordinary priority'
    return 'short turns of ordinary priority'
