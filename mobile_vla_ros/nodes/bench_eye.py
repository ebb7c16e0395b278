"""The executable `bench_eye`."""

import sys

from mobile_vla_ros.nodes.bench.camera import main

if __name__ == '__main__':
    sys.exit(main())
