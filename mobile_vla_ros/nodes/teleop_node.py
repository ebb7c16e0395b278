"""The executable `teleop_node`."""

import sys

from mobile_vla_ros.nodes.teleop.node import main

if __name__ == '__main__':
    sys.exit(main())
