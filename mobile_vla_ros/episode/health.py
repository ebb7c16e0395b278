"""The verdict on a take: good, poor or bad, with the reasons in words."""

import numpy as np

from mobile_vla_ros.episode.timeline import newest_at

VERDICTS = ('good', 'poor', 'bad')

# What makes a take poor; each was chosen so that a take driven by hand at 10 Hz passes easily.
WORST_GAP_S = 0.5
LOWEST_RATE_HZ = 4.0
SKEW_S = 0.5
DROP_SHARE = 0.01
FROZEN_SHARE = 0.1
DEAD_SHARE = 0.5  # as many frozen frames make it bad
IDLE_SHARE = 0.5


def judge(*, frame_stamp_ns: np.ndarray, frame_received_ns: np.ndarray, frozen: np.ndarray,
          command_received_ns: np.ndarray, twist: np.ndarray, drops: int) -> dict:
    """
    Measure a take and say what it is worth; plain numbers and words, fit for JSON.

    :param frame_stamp_ns: (N,) int64 header stamps; likewise ``frame_received_ns``.
    :param frozen: (N,) bool: the image is the same, byte for byte, as the one before.
    :param command_received_ns: (M,) int64 receipt times; twist: (M, 6) m/s and rad/s.
    :param drops: frames known to be lost.
    :returns: ``verdict``, ``reasons`` and the measures: ``frames``, ``commands``,
        ``duration_s``, ``frame_rate_hz``, ``command_rate_hz``, ``worst_gap_s``, ``skew_s``
        (median time from header stamp to receipt: how far the image's clock and the commands'
        are apart), ``drops``, ``frozen_share`` (of the frames taken while the robot was told
        to move), ``idle_share`` (of the frames taken while it was not).
    """
    frames, commands = len(frame_received_ns), len(command_received_ns)
    gaps_s = np.diff(frame_received_ns) / 1e9
    duration_s = float(gaps_s.sum())
    moving = np.zeros(frames, dtype=bool)
    if commands and frames:
        rows, known = newest_at(frame_received_ns, command_received_ns)
        moving = known & np.any(twist[rows] != 0, axis=1)
    # A still picture proves a dead camera only where the robot was told to move twice running.
    watched = moving.copy()
    watched[1:] &= moving[:-1]
    skews_s = (frame_received_ns - frame_stamp_ns) / 1e9
    health = {
        'frames': frames,
        'commands': commands,
        'duration_s': duration_s,
        'frame_rate_hz': (frames - 1) / duration_s if duration_s > 0 else 0.0,
        'command_rate_hz': commands / duration_s if duration_s > 0 else 0.0,
        'worst_gap_s': float(gaps_s.max()) if frames > 1 else 0.0,
        'skew_s': float(np.median(skews_s)) if frames else 0.0,
        'drops': int(drops),
        'frozen_share': float(frozen[watched].mean()) if watched.any() else 0.0,
        'idle_share': float(1 - moving.mean()) if frames else 1.0,
    }
    health = {key: round(value, 4) if isinstance(value, float) else value
              for key, value in health.items()}
    verdict, reasons = _verdict(health)
    return {'verdict': verdict, 'reasons': reasons, **health}


def _verdict(health: dict) -> tuple[str, list[str]]:
    bad, poor = [], []
    if health['frames'] < 2:
        bad.append(f'{health["frames"]} frames: nothing to learn from')
    if not health['commands']:
        bad.append('no command was heard')
    elif health['idle_share'] == 1:
        poor.append('the robot was never told to move')
    elif health['idle_share'] > IDLE_SHARE:
        poor.append(f'idle for {health["idle_share"]:.0%} of the take')
    if health['frozen_share'] > DEAD_SHARE:
        bad.append(f'the picture stood still in {health["frozen_share"]:.0%} of the frames '
                   'taken while the robot was told to move')
    elif health['frozen_share'] > FROZEN_SHARE:
        poor.append(f'the picture stood still in {health["frozen_share"]:.0%} of the frames')
    if health['frames'] > 1 and health['frame_rate_hz'] < LOWEST_RATE_HZ:
        poor.append(f'{health["frame_rate_hz"]:.1f} frames a second')
    if health['worst_gap_s'] > WORST_GAP_S:
        poor.append(f'{health["worst_gap_s"]:.2f} s without a frame')
    if abs(health['skew_s']) > SKEW_S:
        poor.append(f'the camera clock is {health["skew_s"]:.2f} s behind the receiving clock')
    if health['drops'] > DROP_SHARE * (health['frames'] + health['drops']):
        poor.append(f'{health["drops"]} frames dropped')
    return ('bad' if bad else 'poor' if poor else 'good'), bad + poor
