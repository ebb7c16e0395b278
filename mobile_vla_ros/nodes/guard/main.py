"""The guard's process: its environment and priority are set before ROS and numpy are imported."""

import os
from functools import partial

from mobile_vla_ros.bringup.dds import guard_env
from mobile_vla_ros.nodes.shared.startup import request_realtime_priority


def main(args: list[str] | None = None) -> int:
    """Run the guard; return the exit status."""
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # numpy would start one per core
    os.environ.update(guard_env(os.environ))
    scheduling = request_realtime_priority()  # first: the middleware's threads inherit it
    from mobile_vla_ros.nodes.guard.node import GuardNode
    from mobile_vla_ros.nodes.shared.run import run

    return run('guard_node', partial(GuardNode, scheduling), args=args)
