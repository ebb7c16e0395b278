"""
The guard's process.

What a process of Python needs before it is a node takes a third of a second; on a busy machine it
does not have to queue for that either.
"""

import os
from functools import partial

from mobile_vla_ros.bringup.dds import guard_env
from mobile_vla_ros.nodes.guard.realtime import ask_for_punctuality


def main(args: list[str] | None = None) -> int:
    """Run the guard."""
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # numpy would make as many as cores
    os.environ.update(guard_env(os.environ))
    turns = ask_for_punctuality()  # before the middleware makes its threads, which inherit it
    from mobile_vla_ros.nodes.guard.node import GuardNode
    from mobile_vla_ros.nodes.shared.run import run

    return run('guard_node', partial(GuardNode, turns), args=args)
