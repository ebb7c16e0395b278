"""What inference looks at before a drive is armed: one line each, with the remedy when red."""

from collections.abc import Sequence

from mobile_vla_ros.types import Check

# Below this share of the policy's rate no window is ever full.
RATE_SHARE = 0.9
# Shapes of pictures that differ by no more than this share look the same to the policy.
SHAPE_SHARE = 0.02
FREE_SHARE, FREE_BYTES = 0.10, 500_000_000
# Axis of a policy -> its place in max_velocity.
PLANAR = {'linear_x': 0, 'linear_y': 1, 'angular_z': 2}


def check_axes(axes: Sequence[str], max_velocity: Sequence[float]) -> Check:
    """Return whether the base has every axis that a policy drives."""
    lacking = [axis for axis in axes if axis not in PLANAR or max_velocity[PLANAR[axis]] <= 0]
    if lacking:
        return Check(
            'axes',
            False,
            (
                f'it drives {", ".join(axes)}, and the base has no {", ".join(lacking)}; if it '
                'has, give it a limit above 0.0 in max_velocity [x, y, theta]; else train without '
                'it (mobile_vla train --axes)'
            ),
        )
    return Check('axes', True, f'the base has {", ".join(axes)}')


def check_camera_rate(measured_hz: float, policy_hz: float) -> Check:
    """
    Return whether the camera keeps up with the policy.

    :param measured_hz: 0.0 before the first images.
    """
    if not measured_hz:
        return Check(
            'camera_rate',
            False,
            'no image yet; start the camera, and look at the topic (ros2 topic hz)',
        )
    least_hz = RATE_SHARE * policy_hz
    if measured_hz < least_hz:
        return Check(
            'camera_rate',
            False,
            (
                f'the camera gives {measured_hz:.1f} Hz, and the policy wants {policy_hz:g} '
                f'(at least {least_hz:.3g}); raise the rate of the camera, or look for what holds '
                'its images up'
            ),
        )
    return Check('camera_rate', True, f'{measured_hz:.1f} Hz, and the policy wants {policy_hz:g}')


def check_camera_size(
    size: tuple[int, int] | None, side: int, trained: Sequence[Sequence[int]]
) -> Check:
    """
    Return whether the camera's picture is of the trained shape and large enough.

    :param size: width and height, pixels; None before the first image.
    :param side: of the square that the policy sees.
    :param trained: [width, height] of the takes it was trained on; empty where nobody knows.
    """
    if size is None:
        return Check('camera_size', False, 'no image yet; start the camera')
    width, height = size
    if min(size) < side:
        return Check(
            'camera_size',
            False,
            f'the camera gives {width}x{height}, smaller than '
            f'what the policy sees ({side}x{side}); choose a larger picture',
        )
    sizes = ' or '.join(f'{w}x{h}' for w, h in trained)
    if trained and not any(abs(width / height / (w / h) - 1) <= SHAPE_SHARE for w, h in trained):
        return Check(
            'camera_size',
            False,
            f'the camera gives {width}x{height}, another shape '
            f'than in training ({sizes}); set the camera to that shape',
        )
    known = f', trained on {sizes}' if trained else ''
    return Check('camera_size', True, f'{width}x{height}{known}')


def check_clock_skew(
    lateness_s: tuple[float, float] | None, tolerance_s: float, max_age_s: float
) -> Check:
    """
    Return whether camera and this machine agree on the time.

    :param lateness_s: least and most seconds from stamp to receipt of late; None: no image.
    :param tolerance_s: how far a stamp may lie in the future.
    :param max_age_s: the oldest image that is driven by.
    """
    if lateness_s is None:
        return Check('clock_skew', False, 'no image yet; start the camera')
    least, most = lateness_s
    if least < -tolerance_s or most > max_age_s:
        worst = least if least < -tolerance_s else most
        return Check(
            'clock_skew',
            False,
            (
                f'images come {worst:+.3f} s after their stamp, and may {-tolerance_s:+g} to '
                f'{max_age_s:+g}; synchronise the clocks of camera and this machine (chrony), or '
                'look for what delays the images'
            ),
        )
    return Check(
        'clock_skew', True, f'images come {least:+.3f} to {most:+.3f} s after their stamp'
    )


def check_free_memory(rooms: Sequence[tuple[str, int, int]]) -> Check:
    """
    Return whether there is memory left.

    :param rooms: name, free bytes and all bytes of each memory.
    """
    scarce = [
        f'{name} {free / 1e9:.1f} GB of {total / 1e9:.1f}'
        for name, free, total in rooms
        if free < max(FREE_SHARE * total, FREE_BYTES)
    ]
    if scarce:
        return Check(
            'free_memory',
            False,
            f'little memory is left: {", ".join(scarce)}; end '
            'other programs, or drive in another precision',
        )
    return Check(
        'free_memory',
        True,
        ', '.join(
            f'{name} {free / 1e9:.1f} GB free of {total / 1e9:.1f}' for name, free, total in rooms
        ),
    )
