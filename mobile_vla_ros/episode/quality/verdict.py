"""The verdict on a take: good, poor or bad, with the reasons in words."""

from collections.abc import Sequence

import numpy as np

from mobile_vla_ros.episode.quality import camera_clock as clock
from mobile_vla_ros.episode.quality.image_quality import Look
from mobile_vla_ros.episode.timing.timeline import frame_times, newest_at
from mobile_vla_ros.types import NANOSECONDS

# What makes a take poor or bad; chosen so that one driven by hand at 10 Hz passes easily. Shares
# are of frames, or of the frames that were looked at, unless another word is said.
FEWEST_FRAMES = 2
LOWEST_RATE_HZ = 4.0
POOR_RATE_SHARE, BAD_RATE_SHARE = 0.8, 0.5  # of the rate that was expected
WORST_GAP_S, WORST_GAP_PERIODS = 0.5, 3.0  # both: a slow camera's own period is no gap
POOR_DROP_SHARE = 0.01
POOR_FROZEN_SHARE, BAD_FROZEN_SHARE = 0.1, 0.5
POOR_IDLE_SHARE = 0.5
POOR_DARK_SHARE, BAD_DARK_SHARE = 0.1, 0.5
POOR_BLURRED_SHARE = 0.2  # never bad: sharpness is an estimate, and bad takes are left out


def judge(
    *,
    frame_stamp_ns: np.ndarray,
    frame_received_ns: np.ndarray,
    frozen: np.ndarray,
    command_received_ns: np.ndarray,
    twist: np.ndarray,
    drops: int,
    looks: Sequence[Look] = (),
    expected_rate_hz: float | None = None,
    timed: bool = True,
) -> dict:
    """
    Measure a take and say what it is worth; plain numbers and words, fit for JSON.

    Frames are timed as training times them (``timeline.frame_times``).

    :param frame_stamp_ns: (N,) int64 header stamps; likewise ``frame_received_ns``.
    :param frozen: (N,) bool: the image is the same, byte for byte, as the one before.
    :param command_received_ns: (M,) int64 receipt times; twist: (M, 6) m/s and rad/s.
    :param drops: frames known to be lost.
    :param looks: what the images that were looked at are like (``picture.is_due``).
    :param expected_rate_hz: what the camera gives, frames a second; None or 0: not known.
    :param timed: False where the times are made up, as of rows that had none: nobody knows then
        whether the robot moved from one picture to the next, and no picture makes the take bad.
    :returns: ``verdict``, ``reasons`` and the measures: ``frames``, ``commands``,
        ``duration_s``, ``frame_rate_hz``, ``expected_rate_hz`` (None: not known),
        ``command_rate_hz``, ``worst_gap_s``, ``clock`` (one of ``clock.KINDS``), ``skew_s``
        (median time from header stamp to receipt: how far the image's clock and the commands'
        are apart), ``drops``, ``drop_share``, ``frozen_share`` (of the frames taken while the
        robot was told to move), ``idle_share`` (of the frames taken while it was not),
        ``looked_at``, ``dark_share`` and ``blurred_share`` (of the images looked at), ``timed``.
    """
    frames, commands = len(frame_received_ns), len(command_received_ns)
    camera = clock.check(frame_stamp_ns, frame_received_ns)
    times_ns, by = frame_times(frame_stamp_ns, frame_received_ns)
    in_time = np.sort(times_ns) if by == 'stamp' else times_ns  # some were overtaken on their way
    gaps_s = np.maximum(np.diff(in_time) / NANOSECONDS, 0.0)
    duration_s = float(gaps_s.sum())
    moving = _told_to_move(times_ns, command_received_ns, twist)
    # A still picture proves a dead camera only where the robot was told to move twice running.
    watched = moving.copy()
    watched[1:] &= moving[:-1]
    skews_s = (frame_received_ns - frame_stamp_ns) / NANOSECONDS
    # A camera that died left no frame to end its gap: the commands went on.
    silent_s = (
        float(command_received_ns[-1] - frame_received_ns[-1]) / NANOSECONDS
        if frames and commands
        else 0.0
    )
    health = {
        'frames': frames,
        'commands': commands,
        'duration_s': duration_s,
        'frame_rate_hz': (frames - 1) / duration_s if duration_s > 0 else 0.0,
        'expected_rate_hz': float(expected_rate_hz) if expected_rate_hz else None,
        'command_rate_hz': commands / duration_s if duration_s > 0 else 0.0,
        'worst_gap_s': max(float(gaps_s.max()) if frames > 1 else 0.0, silent_s),
        'clock': camera.kind,
        'skew_s': float(np.median(skews_s)) if frames else 0.0,
        'drops': int(drops),
        'drop_share': drops / (frames + drops) if drops else 0.0,
        'frozen_share': float(frozen[watched].mean()) if watched.any() else 0.0,
        'idle_share': float(1 - moving.mean()) if frames else 1.0,
        'looked_at': len(looks),
        'dark_share': sum(look.dark for look in looks) / max(1, len(looks)),
        'blurred_share': sum(look.blurred for look in looks) / max(1, len(looks)),
        'timed': timed,
    }
    health = {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in health.items()
    }
    bad, poor = [], []
    _judge_streams(health, bool(np.isfinite(twist).all()), bad, poor)
    _judge_times(health, float(np.median(gaps_s)) if frames > 1 else 0.0, bad, poor)
    if not camera.sane:
        poor.append(f'{camera.sentence}: the frames are timed by their receipt')
    _judge_pictures(health, bad if timed else poor, poor)
    verdict = 'bad' if bad else 'poor' if poor else 'good'
    return {'verdict': verdict, 'reasons': bad + poor, **health}


def _told_to_move(
    times_ns: np.ndarray, command_received_ns: np.ndarray, twist: np.ndarray
) -> np.ndarray:
    """Return (N,) bool: the newest command at each frame's time is not zero."""
    if not len(command_received_ns) or not len(times_ns):
        return np.zeros(len(times_ns), dtype=bool)
    # A clock that was set back leaves receipts out of order.
    order = np.argsort(command_received_ns, kind='stable')
    rows, known = newest_at(times_ns, command_received_ns[order])
    return known & np.any(twist[order][rows] != 0, axis=1)


def _judge_streams(health: dict, finite: bool, bad: list[str], poor: list[str]):
    """Judge what is there at all: frames, commands, motion."""
    if health['frames'] < FEWEST_FRAMES:
        bad.append(f'{health["frames"]} frames: nothing to learn from')
    if not finite:
        bad.append('a command is not a finite number')
    if not health['commands']:
        bad.append('no command was heard')
    elif health['idle_share'] == 1:
        poor.append('the robot was never told to move')
    elif health['idle_share'] > POOR_IDLE_SHARE:
        poor.append(f'idle for {health["idle_share"]:.0%} of the take')


def _judge_times(health: dict, period_s: float, bad: list[str], poor: list[str]):
    """Judge rate, gaps and drops; ``period_s`` is the frames' median spacing."""
    if health['frames'] < FEWEST_FRAMES:
        return
    rate_hz, expected_hz = health['frame_rate_hz'], health['expected_rate_hz']
    if expected_hz and rate_hz < POOR_RATE_SHARE * expected_hz:
        (bad if rate_hz < BAD_RATE_SHARE * expected_hz else poor).append(
            f'{rate_hz:.1f} frames a second where {expected_hz:.1f} were expected'
        )
    elif rate_hz < LOWEST_RATE_HZ:
        poor.append(f'{rate_hz:.1f} frames a second')
    if expected_hz:
        period_s = 1 / expected_hz
    if health['worst_gap_s'] > max(WORST_GAP_S, WORST_GAP_PERIODS * period_s):
        poor.append(f'{health["worst_gap_s"]:.2f} s without a frame')
    if health['drop_share'] > POOR_DROP_SHARE:
        poor.append(f'{health["drops"]} frames dropped, {health["drop_share"]:.0%} of all')


def _judge_pictures(health: dict, bad: list[str], poor: list[str]):
    """Judge what the camera shows: whether it lives, and whether anything can be seen."""
    for share, limits, words in (
        (
            health['frozen_share'],
            (POOR_FROZEN_SHARE, BAD_FROZEN_SHARE),
            'the picture stood still in {} of the frames taken while the robot was told to move',
        ),
        (
            health['dark_share'],
            (POOR_DARK_SHARE, BAD_DARK_SHARE),
            'the picture is dark in {} of the frames looked at: a lens cap, or no light',
        ),
        (
            health['blurred_share'],
            (POOR_BLURRED_SHARE, 1.0),
            'the picture is blurred in {} of the frames looked at: out of focus, a dirty lens, '
            'or turned too fast',
        ),
    ):
        if share > limits[0]:
            (bad if share > limits[1] else poor).append(words.format(f'{share:.0%}'))
