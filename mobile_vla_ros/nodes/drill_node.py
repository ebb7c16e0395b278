"""The executable `drill_node`."""

import sys

from mobile_vla_ros.nodes.drill.node import main

if __name__ == '__main__':
    sys.exit(main())
