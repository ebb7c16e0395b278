"""The executable `drill_camera`."""

import sys

from mobile_vla_ros.nodes.drill.camera import main

if __name__ == '__main__':
    sys.exit(main())
