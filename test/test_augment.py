"""What augmentation may change, and what it must leave together."""

import numpy as np

from mobile_vla_ros.data.augment import mirror_actions, mirror_images, mirror_instruction
from mobile_vla_ros.types import ActionSpec


def test_a_mirrored_world_is_consistent():
    """Images, axes and words change sides together, or the policy learns left for right."""
    spec = ActionSpec(('linear_x', 'linear_y', 'angular_z'), (1, 1, 1))
    actions = np.array([[0.1, 0.2, 0.3]], np.float32)
    np.testing.assert_array_equal(mirror_actions(actions, spec),
                                  np.array([[0.1, -0.2, -0.3]], np.float32))
    image = np.zeros((1, 2, 4, 3), np.uint8)
    image[:, :, 0] = 255
    assert mirror_images(image)[0, :, 3].all()
    assert not mirror_images(image)[0, :, :3].any()
    assert mirror_instruction('Left of the leftmost box, right away') == (
        'Right of the rightmost box, left away')
    assert mirror_instruction('go to the bright box') == 'go to the bright box'
