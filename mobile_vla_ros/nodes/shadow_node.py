"""The executable `shadow_node`."""

import sys

from mobile_vla_ros.nodes.shadow.node import main

if __name__ == '__main__':
    sys.exit(main())
