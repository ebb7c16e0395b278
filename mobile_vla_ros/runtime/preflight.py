"""Inference's checks before arming: one line each, with the remedy when red."""

from collections.abc import Sequence

from mobile_vla_ros.runtime.camera_faults import CLOCK_REMEDY, clock_remedy
from mobile_vla_ros.runtime.policy import Policy, unknown_words
from mobile_vla_ros.types import Check

# Below this share of the policy's rate a window is never full.
RATE_SHARE = 0.9
# Aspect ratios that differ by no more than this share count as equal.
SHAPE_SHARE = 0.02
FREE_SHARE, FREE_BYTES = 0.10, 500_000_000
# Axis of a policy → its index in max_velocity.
PLANAR = {'linear_x': 0, 'linear_y': 1, 'angular_z': 2}


def check_axes(axes: Sequence[str], max_velocity: Sequence[float]) -> Check:
    """Check that the base has every axis that a policy drives."""
    lacking = [axis for axis in axes if axis not in PLANAR or max_velocity[PLANAR[axis]] <= 0]
    if lacking:
        return Check(
            'axes',
            False,
            (
                f'the policy drives {", ".join(axes)}, and the base has no {", ".join(lacking)}; '
                'if it has, set a limit above 0.0 in max_velocity [x, y, theta]; otherwise train '
                'without it (mobile_vla train --axes)'
            ),
        )
    return Check('axes', True, f'the base has {", ".join(axes)}')


def check_instruction(policy: Policy, instruction: str) -> Check:
    """
    Check that a policy knows every word of an instruction; one without a tokenizer does.

    :param instruction: '' while there is none.
    """
    words = unknown_words(policy, instruction)
    if words:
        return Check(
            'instruction',
            False,
            f'the policy does not know {", ".join(words)} in {instruction!r} and reads any such '
            'word alike; use words that it was trained on',
        )
    return Check('instruction', True, f'{instruction!r}' if instruction else 'none yet')


def check_camera_rate(measured_hz: float, policy_hz: float) -> Check:
    """
    Check that the camera is fast enough for the policy.

    :param measured_hz: 0.0 before the first images.
    """
    if not measured_hz:
        return Check(
            'camera_rate',
            False,
            'no image yet; start the camera, and check its topic (ros2 topic hz)',
        )
    min_hz = RATE_SHARE * policy_hz
    if measured_hz < min_hz:
        return Check(
            'camera_rate',
            False,
            (
                f'the camera delivers {measured_hz:.1f} Hz, and the policy expects {policy_hz:g} '
                f'(at least {min_hz:.3g}); raise the rate of the camera, or find out what delays '
                'its images'
            ),
        )
    return Check(
        'camera_rate', True, f'{measured_hz:.1f} Hz, and the policy expects {policy_hz:g}'
    )


def check_camera_size(
    size: tuple[int, int] | None, side: int, trained: Sequence[Sequence[int]]
) -> Check:
    """
    Check that the camera's images are large enough and have the aspect ratio of the training.

    :param size: width and height, pixels; None before the first image.
    :param side: of the square that the policy reads.
    :param trained: [width, height] of the episodes it was trained on; empty if unknown.
    """
    if size is None:
        return Check('camera_size', False, 'no image yet; start the camera')
    width, height = size
    if min(size) < side:
        return Check(
            'camera_size',
            False,
            f'the camera delivers {width}x{height}, smaller than '
            f'what the policy reads ({side}x{side}); choose a larger image size',
        )
    sizes = ' or '.join(f'{w}x{h}' for w, h in trained)
    if trained and not any(abs(width / height / (w / h) - 1) <= SHAPE_SHARE for w, h in trained):
        return Check(
            'camera_size',
            False,
            f'the camera delivers {width}x{height}, another aspect ratio '
            f'than in training ({sizes}); set the camera to that ratio',
        )
    known = f', trained on {sizes}' if trained else ''
    return Check('camera_size', True, f'{width}x{height}{known}')


def check_camera_topic(trained: str, driven: str) -> Check:
    """
    Name the camera that a policy was trained on; never red, as names may differ between robots.

    :param trained: name of that camera; driven: of the one that it drives with.
    """
    found = f'trained on {trained}, drives with {driven}'
    if trained != driven:
        found = f'warning: {found}; set image_topic if that is another camera'
    return Check('camera_topic', True, found)


def check_clock_skew(
    lateness_s: tuple[float, float] | None,
    tolerance_s: float,
    max_age_s: float,
    *,
    images: bool = False,
    by_receipt: bool = False,
    latency_s: float = 0.0,
) -> Check:
    """
    Check that the clocks of the camera and of this machine agree.

    :param lateness_s: recent minimum and maximum of receipt minus stamp; None: no valid stamp.
    :param tolerance_s: how far a stamp may lie in the future.
    :param max_age_s: maximum age of an image.
    :param images: whether there are images.
    :param by_receipt: whether stamps are not the camera's, but times of sending.
    :param latency_s: how long before its sending such a stamp lies; not part of the range shown.
    """
    if lateness_s is None and images:
        missing = 'time of sending' if by_receipt else f'valid stamp; {CLOCK_REMEDY}'
        return Check('clock_skew', False, f'no image has a {missing}')
    if lateness_s is None:
        return Check('clock_skew', False, 'no image yet; start the camera')
    since = 'their stamp'
    if by_receipt:
        since = 'they were sent; ' + (
            f'camera_latency_s {latency_s:g} s is added'
            if latency_s
            else 'exposure and driver are not counted (camera_latency_s 0)'
        )
    lowest, highest = (late_s - latency_s for late_s in lateness_s)
    if lowest < -tolerance_s or lateness_s[1] > max_age_s:
        worst = lowest if lowest < -tolerance_s else highest
        return Check(
            'clock_skew',
            False,
            (
                f'images arrive {worst:+.3f} s after {since}; {-tolerance_s:+g} to '
                f'{max_age_s - latency_s:+g} is allowed; {clock_remedy(worst, by_receipt)}'
            ),
        )
    return Check(
        'clock_skew', True, f'images arrive {lowest:+.3f} to {highest:+.3f} s after {since}'
    )


def check_free_memory(memories: Sequence[tuple[str, int, int]]) -> Check:
    """
    Check that enough memory is free.

    :param memories: name, free bytes and total bytes of each memory.
    """
    scarce = [
        f'{name} {free / 1e9:.1f} GB of {total / 1e9:.1f}'
        for name, free, total in memories
        if free < max(FREE_SHARE * total, FREE_BYTES)
    ]
    if scarce:
        return Check(
            'free_memory',
            False,
            f'little memory is left: {", ".join(scarce)}; close '
            'other programs, or drive in another precision',
        )
    return Check(
        'free_memory',
        True,
        ', '.join(
            f'{name} {free / 1e9:.1f} GB free of {total / 1e9:.1f}'
            for name, free, total in memories
        ),
    )
