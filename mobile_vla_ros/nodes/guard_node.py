"""The executable `guard_node`, whose environment and priority are set before ROS is imported."""

import os
import sys
from functools import partial

from mobile_vla_ros.nodes.shared.startup import end_quietly, request_realtime_priority


def main(args: list[str] | None = None) -> int:
    """Run the node until it ends; return the exit status."""
    end_quietly()
    from mobile_vla_ros.bringup.dds import guard_env

    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # numpy would start one per core
    os.environ.update(guard_env(os.environ))
    scheduling = request_realtime_priority()  # first: the middleware's threads inherit it
    from mobile_vla_ros.nodes.guard.node import GuardNode
    from mobile_vla_ros.nodes.shared.run import run

    return run('guard_node', partial(GuardNode, scheduling), args=args)


if __name__ == '__main__':
    sys.exit(main())
