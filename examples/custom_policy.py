"""
Write your own policy and drive it: this one goes to the largest red area.

    export PYTHONPATH=examples     # where Python finds the module
    mobile_vla simulate --policy custom_policy:RedPolicy --trials 20
    mobile_vla compare --policies custom_policy:RedPolicy builtin:demo_diff
    ros2 launch mobile_vla_ros drive.launch.py policy:=custom_policy:RedPolicy sim:=true base:=diff
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mobile_vla_ros import ActionSpec, Frame, Plan, spec_without_network

SPEED_MPS, TURN_RADPS = 0.4, 1.5
ARRIVED = 0.98  # the area reaches down to this fraction of the image height


class RedPolicy:
    """
    A `mobile_vla_ros.Policy`: only `spec`, `infer` and `reset` are required.

    Plain code needs no torch and no training. To drive a network instead, load it in `__init__`.
    """

    def __init__(self):
        actions = ActionSpec(axes=('linear_x', 'angular_z'), scale=(SPEED_MPS, TURN_RADPS))
        self.spec = spec_without_network('red', actions, rate_hz=10.0, window=1, chunk=5)

    def infer(self, window: Sequence[Frame], instruction: str) -> Plan:
        """Return half a second of commands from the newest frame on."""
        newest = window[-1]
        action = [0.0, 0.0]
        if 'red' in instruction:
            action = steer(newest.image)
        # Normalised actions, -1 to 1, become twists in m/s and rad/s.
        twists = self.spec.actions.denormalise(np.tile(action, (self.spec.chunk, 1)))
        return Plan(newest.stamp_ns, twists, self.spec.rate_hz)

    def reset(self) -> None:
        """Do nothing: this policy has no state."""


def steer(image: np.ndarray) -> list[float]:
    """
    Return [forward, left turn], -1 to 1 each, for an image (height, width, 3) uint8 RGB.
    """
    red, green, blue = np.moveaxis(image.astype(np.int16), 2, 0)
    mask = (red > 60) & (red > 2.5 * green) & (red > 2.5 * blue)
    count, _, areas, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:  # the background alone
        return [0.0, 0.4]  # turn to search
    largest = 1 + int(np.argmax(areas[1:, cv2.CC_STAT_AREA]))
    bottom = areas[largest, cv2.CC_STAT_TOP] + areas[largest, cv2.CC_STAT_HEIGHT]
    height, width = mask.shape
    turn = float(np.clip(1 - 2 * centres[largest][0] / width, -1, 1))
    if bottom >= ARRIVED * height:
        return [0.0, 0.0]
    # Slow down in turns, and near the object.
    forward = min(1.0, 0.25 + 3 * (ARRIVED - bottom / height)) * (1 - abs(turn))
    return [forward, turn]
