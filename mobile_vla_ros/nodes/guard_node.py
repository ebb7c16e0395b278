"""The executable `guard_node`."""

import sys

from mobile_vla_ros.nodes.guard.main import main

if __name__ == '__main__':
    sys.exit(main())
