"""The guard's process: it ends without a word while it still imports, and then runs the guard."""

import os
import signal
import sys


def main(args: list[str] | None = None) -> int:
    """Run the guard."""
    for number in (signal.SIGINT, signal.SIGTERM):  # until `run` listens for them itself
        signal.signal(number, lambda *_: os._exit(0))
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # numpy would make as many as cores
    from mobile_vla_ros.nodes.common import run
    from mobile_vla_ros.nodes.guard_ros import GuardNode
    return run('guard_node', GuardNode, args=args)


if __name__ == '__main__':
    sys.exit(main())
