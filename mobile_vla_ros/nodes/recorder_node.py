"""The executable `recorder_node`."""

import sys

from mobile_vla_ros.nodes.recorder.node import main

if __name__ == '__main__':
    sys.exit(main())
