"""The executable `arena_runner`."""

import sys

from mobile_vla_ros.nodes.sim.trial_runner import main

if __name__ == '__main__':
    sys.exit(main())
