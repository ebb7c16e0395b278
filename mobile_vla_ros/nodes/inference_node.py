"""The executable `inference_node`."""

import sys

from mobile_vla_ros.nodes.shared.startup import end_quietly


def main(args: list[str] | None = None) -> int:
    """Run the node until it ends; return the exit status."""
    end_quietly()
    from mobile_vla_ros.nodes.inference.node import main as run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
