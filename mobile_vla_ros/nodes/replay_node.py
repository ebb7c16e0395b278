"""The executable `replay_node`."""

import sys

from mobile_vla_ros.nodes.replay.node import main

if __name__ == '__main__':
    sys.exit(main())
