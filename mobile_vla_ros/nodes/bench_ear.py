"""The executable `bench_ear`."""

import sys

from mobile_vla_ros.nodes.bench.base import main

if __name__ == '__main__':
    sys.exit(main())
