"""The executable `inference_node`."""

import sys

from mobile_vla_ros.nodes.inference.node import main

if __name__ == '__main__':
    sys.exit(main())
