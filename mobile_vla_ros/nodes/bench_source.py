"""The executable `bench_source`."""

import sys

from mobile_vla_ros.nodes.bench.source import main

if __name__ == '__main__':
    sys.exit(main())
