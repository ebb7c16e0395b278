"""The executable `sim_node`."""

import sys

from mobile_vla_ros.nodes.sim.node import main

if __name__ == '__main__':
    sys.exit(main())
