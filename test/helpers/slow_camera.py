"""
A camera process without a clock whose images Fast DDS holds back for 0.3 to 0.4 s.

    python -m helpers.slow_camera PROFILE

Sends five images in four of the periods in which the profile lets one through, so that always
three or four of them wait in the middleware.
"""

import os
import sys
import time
from pathlib import Path

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <data_writer profile_name="/camera/image_raw">
    <qos><publishMode><kind>ASYNCHRONOUS</kind></publishMode></qos>
    <throughputController>
      <bytesPerPeriod>12000</bytesPerPeriod><periodMillisecs>100</periodMillisecs>
    </throughputController>
  </data_writer>
</profiles></dds>
"""


def main() -> None:
    """Write the profile, let Fast DDS read it, and publish until killed."""
    path = Path(sys.argv[1])
    path.write_text(PROFILE)
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        os.environ[name] = str(path)
    os.environ['RMW_FASTRTPS_USE_QOS_FROM_XML'] = '1'
    import numpy as np
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    rclpy.init(args=[])
    node, rng = rclpy.create_node('slow_camera'), np.random.default_rng(0)
    images = node.create_publisher(Image, 'camera/image_raw', qos_profile_sensor_data)
    while True:
        pixels = rng.integers(0, 256, 48 * 64 * 3, dtype=np.uint8)
        images.publish(
            Image(height=48, width=64, encoding='rgb8', step=192, data=pixels.tobytes())
        )
        time.sleep(0.08)


if __name__ == '__main__':
    main()
