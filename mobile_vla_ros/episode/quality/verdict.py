"""The verdict on an episode: good, poor or bad, with the reasons in words."""

import json
from collections.abc import Sequence
from typing import Any, TypedDict, cast

import numpy as np

from mobile_vla_ros.episode.odometry import Odometry
from mobile_vla_ros.episode.quality.base_check import BaseCheck, check_base
from mobile_vla_ros.episode.quality.image_quality import ImageQuality
from mobile_vla_ros.episode.timing import camera_clock as clock
from mobile_vla_ros.episode.timing.command_rule import (
    ASSUMED,
    HOLDS,
    MAX_TIMEOUT_S,
    SETTING,
    CommandLog,
    CommandRule,
    CommandUse,
    KnownBy,
)
from mobile_vla_ros.episode.timing.receipts import clock_steps
from mobile_vla_ros.episode.timing.timeline import frame_times
from mobile_vla_ros.types import NANOSECONDS, TWIST_AXES, VERDICTS

# Thresholds that make an episode poor or bad; one driven by hand at 10 Hz passes easily. Shares
# are fractions of all frames (or of sampled frames, where noted).
MIN_FRAMES = 2
MIN_RATE_HZ = 4.0
POOR_RATE_SHARE, BAD_RATE_SHARE = 0.8, 0.5  # of the expected rate
WORST_GAP_S, WORST_GAP_PERIODS = 0.5, 3.0  # both: a slow camera's own period is no gap
POOR_DROP_SHARE = 0.01
POOR_FROZEN_SHARE, BAD_FROZEN_SHARE = 0.1, 0.5
POOR_IDLE_SHARE = 0.5
# Of the driven frames: those that an assumed timeout labels as standing still.
POOR_ASSUMED_SHARE = 0.1
POOR_DARK_SHARE, BAD_DARK_SHARE = 0.1, 0.5  # of sampled frames
POOR_BLURRED_SHARE = 0.2  # of sampled frames; never bad: sharpness is an estimate


class Health(TypedDict, total=False):
    """
    A verdict, its reasons, its notes and its measures, as an episode file keeps them (JSON).

    Files from older versions lack the keys that were added since.

    ``expected_rate_hz`` is None when unknown. ``clock`` is one of ``camera_clock.KINDS``.
    ``clock_steps`` counts how often the receiving clock was set (``timing.receipts``).
    ``skew_s`` is the median time from header stamp to receipt, the offset between the clocks of
    images and commands. ``frozen_share`` is of the frames taken while the robot was commanded to
    move, ``idle_share`` of the frames taken while it was not. ``broken`` counts the images that
    are cut short, or are sampled and cannot be decoded; ``looked_at`` counts the sampled ones,
    ``dark_share`` and ``blurred_share`` are of those.

    ``base_command_timeout_s`` (0: it holds the last command) and ``base_known_by`` say what the
    base does when no command comes (``command_rule``). ``held_share`` and ``expired_share`` are of
    the frames whose newest command is not zero: driven on an old command, and counted as standing
    still. ``notes`` are sentences that change no verdict.

    In episodes with odometry, ``odometry_scale`` says for each axis that could be judged how many
    times the commanded speed was driven, and ``odometry_lag_s`` how much later (``base_check``).
    """

    verdict: str
    reasons: list[str]
    notes: list[str]
    frames: int
    commands: int
    duration_s: float
    frame_rate_hz: float
    expected_rate_hz: float | None
    command_rate_hz: float
    worst_gap_s: float
    clock: str
    clock_steps: int
    skew_s: float
    drops: int
    drop_share: float
    frozen_share: float
    idle_share: float
    broken: int
    looked_at: int
    dark_share: float
    blurred_share: float
    timed: bool
    base_command_timeout_s: float
    base_known_by: str
    held_share: float
    expired_share: float
    odometry_scale: dict[str, float]
    odometry_lag_s: dict[str, float]


MAX_MEASURE = 1e12  # of any measure in a file
# What ``read_health`` accepts beside numbers; None only where a measure may be unknown.
WORDS: dict[str, type] = {'verdict': str, 'clock': str, 'timed': bool, 'base_known_by': str}
SENTENCES = ('reasons', 'notes')
BY_AXIS = ('odometry_scale', 'odometry_lag_s')


def read_health(text: str) -> Health:
    """
    Return the verdict that a file keeps; measures that this version does not know are left out.

    :raises ValueError: when it is not JSON, or a value is not of its kind.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError('JSON that is nested too deeply') from None
    if not isinstance(found, dict):
        raise ValueError(f'{found!r:.40}')
    known: dict[str, Any] = {name: found[name] for name in Health.__annotations__ if name in found}
    reasons = known.get('reasons')
    if known.get('verdict') not in VERDICTS or not _are_sentences(reasons):
        raise ValueError(f'verdict {known.get("verdict")!r:.40}, reasons {reasons!r:.40}')
    for name, value in known.items():
        if name in WORDS:
            right = type(value) is WORDS[name]
        elif name == 'expected_rate_hz':
            right = value is None or (_is_number(value) and value >= 0)
        elif name in BY_AXIS:
            right = type(value) is dict and all(
                axis in TWIST_AXES and _is_number(one) for axis, one in value.items()
            )
        else:
            right = _are_sentences(value) if name in SENTENCES else _is_number(value)
        if not right:
            raise ValueError(f'{name} {value!r:.40}')
    return cast(Health, known)


def stored_rule(health: Health) -> CommandRule | None:
    """Return what the base does by a stored verdict, None if it does not say."""
    timeout_s = health.get('base_command_timeout_s', -1.0)
    known_by = health.get('base_known_by')
    if known_by not in list(KnownBy) or not HOLDS <= timeout_s <= MAX_TIMEOUT_S:
        return None
    return CommandRule(timeout_s, KnownBy(known_by))


def sentences(health: Health) -> list[str]:
    """Return verdict, reasons and notes, for people."""
    return [health['verdict'], *health['reasons'], *health.get('notes', ())]


def _are_sentences(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(cast(float, value)) < MAX_MEASURE  # NaN is not


def judge(
    *,
    frame_stamp_ns: np.ndarray,
    frame_received_ns: np.ndarray,
    frame_steady_ns: np.ndarray,
    frozen: np.ndarray,
    command_steady_ns: np.ndarray,
    twist: np.ndarray,
    drops: int,
    broken: int = 0,
    samples: Sequence[ImageQuality] = (),
    expected_rate_hz: float | None = None,
    timed: bool = True,
    rule: CommandRule = ASSUMED,
    odometry: Odometry | None = None,
) -> Health:
    """
    Measure an episode and judge it.

    Frames are timed as in training (``timeline.frame_times``). The steady times are without steps
    (``timing.receipts``).

    :param frame_stamp_ns: (N,) int64 header stamps; likewise ``frame_received_ns``, and
        ``frame_steady_ns`` on the clock that never steps.
    :param frozen: (N,) bool: the image equals the previous one, byte for byte.
    :param command_steady_ns: (M,) int64 receipts on it; twist: (M, 6) m/s and rad/s.
    :param drops: frames known to be lost; broken: images that cannot be decoded.
    :param samples: quality of the sampled images (``image_quality.is_due``).
    :param expected_rate_hz: the camera's rate, frames a second; None or 0: unknown.
    :param timed: False where the times are invented, as for rows without times: whether the robot
        moved between two images is unknown then, and images make no episode bad.
    :param rule: what the base does when no command comes.
    :param odometry: what the base reports of its motion; None: it reports none.
    :returns: plain values, fit for JSON.
    """
    frames, commands = len(frame_received_ns), len(command_steady_ns)
    camera = clock.check(frame_stamp_ns, frame_received_ns, frame_steady_ns)
    times_ns, _ = frame_times(frame_stamp_ns, frame_received_ns, frame_steady_ns)
    gaps_s = np.diff(np.sort(times_ns)) / NANOSECONDS  # frames may overtake each other
    duration_s = float(gaps_s.sum())
    log = CommandLog(command_steady_ns, twist, rule)
    moving, use = (log.at(times_ns)[0] != 0).any(axis=1), log.use(times_ns)
    # A still image proves a dead camera only between two frames with a command to move.
    watched = moving.copy()
    watched[1:] &= moving[:-1]
    skews_s = (frame_received_ns - frame_stamp_ns) / NANOSECONDS
    # A camera that died leaves no frame to end its last gap: later commands show its length.
    silent_s = (
        float(command_steady_ns[-1] - frame_steady_ns[-1]) / NANOSECONDS
        if frames and commands
        else 0.0
    )
    measures: Health = {
        'frames': frames,
        'commands': commands,
        'duration_s': round(duration_s, 4),
        'frame_rate_hz': round((frames - 1) / duration_s, 4) if duration_s > 0 else 0.0,
        'expected_rate_hz': round(float(expected_rate_hz), 4) if expected_rate_hz else None,
        'command_rate_hz': round(commands / duration_s, 4) if duration_s > 0 else 0.0,
        'worst_gap_s': round(max(float(gaps_s.max()) if frames > 1 else 0.0, silent_s), 4),
        'clock': camera.kind,
        'clock_steps': len(clock_steps(frame_received_ns, frame_steady_ns)),
        'skew_s': round(float(np.median(skews_s)), 4) if frames else 0.0,
        'drops': int(drops),
        'drop_share': round(drops / (frames + drops), 4) if drops else 0.0,
        'frozen_share': round(float(frozen[watched].mean()), 4) if watched.any() else 0.0,
        'idle_share': round(float(1 - moving.mean()), 4) if frames else 1.0,
        'broken': broken,
        'looked_at': len(samples),
        'dark_share': round(sum(one.dark for one in samples) / max(1, len(samples)), 4),
        'blurred_share': round(sum(one.blurred for one in samples) / max(1, len(samples)), 4),
        'timed': timed,
        'base_command_timeout_s': rule.timeout_s,
        'base_known_by': rule.known_by.value,
        'held_share': round(use.held_share, 4),
        'expired_share': round(use.expired_share, 4),
    }
    base = BaseCheck() if odometry is None else check_base(log, odometry)
    if odometry is not None:
        measures |= {'odometry_scale': base.scale, 'odometry_lag_s': base.lag_s}
    bad: list[str] = []
    poor: list[str] = []
    _judge_streams(measures, bool(np.isfinite(twist).all()), bad, poor)
    _judge_times(measures, float(np.median(gaps_s)) if frames > 1 else 0.0, bad, poor)
    if not camera.sane:
        poor.append(f'{camera.sentence}: frames are timed by their receipt')
    if broken:
        bad.append(f'{broken} of {frames} images are broken')
    _judge_images(measures, bad if timed else poor, poor)
    poor += base.poor
    notes = list(base.notes)
    _judge_base(use, poor, notes)
    verdict = 'bad' if bad else 'poor' if poor else 'good'
    return {'verdict': verdict, 'reasons': bad + poor, 'notes': notes, **measures}


def _judge_base(use: CommandUse, poor: list[str], notes: list[str]) -> None:
    """Report how much of the episode depends on what the base does between two commands."""
    if not use.notable:
        return
    if use.rule.known_by != KnownBy.ASSUMED:
        notes.append(use.sentence)
        return
    sentence = f'{use.sentence}; set {SETTING}, 0 if the base holds the last command'
    (poor if use.expired_share > POOR_ASSUMED_SHARE else notes).append(sentence)


def _judge_streams(health: Health, finite: bool, bad: list[str], poor: list[str]) -> None:
    """Judge the amount of frames, commands and motion."""
    if health['frames'] < MIN_FRAMES:
        bad.append(f'{health["frames"]} frames: nothing to learn from')
    if not finite:
        bad.append('a command is not a finite number')
    if not health['commands']:
        bad.append('no command was received')
    elif health['idle_share'] == 1:
        poor.append('the robot was never commanded to move')
    elif health['idle_share'] > POOR_IDLE_SHARE:
        poor.append(f'idle for {health["idle_share"]:.0%} of the episode')


def _judge_times(health: Health, period_s: float, bad: list[str], poor: list[str]) -> None:
    """Judge rate, gaps and drops; ``period_s`` is the frames' median spacing."""
    if health['frames'] < MIN_FRAMES:
        return
    rate_hz, expected_hz = health['frame_rate_hz'], health['expected_rate_hz']
    if expected_hz and rate_hz < POOR_RATE_SHARE * expected_hz:
        (bad if rate_hz < BAD_RATE_SHARE * expected_hz else poor).append(
            f'{rate_hz:.1f} frames a second where {expected_hz:.1f} were expected'
        )
    elif rate_hz < MIN_RATE_HZ:
        poor.append(f'{rate_hz:.1f} frames a second')
    if expected_hz:
        period_s = 1 / expected_hz
    if health['worst_gap_s'] > max(WORST_GAP_S, WORST_GAP_PERIODS * period_s):
        poor.append(f'{health["worst_gap_s"]:.2f} s without a frame')
    if health['drop_share'] > POOR_DROP_SHARE:
        poor.append(f'{health["drops"]} frames dropped, {health["drop_share"]:.0%} of all')


def _judge_images(health: Health, bad: list[str], poor: list[str]) -> None:
    """Judge whether the camera is alive, and whether its images show anything."""
    for share, (poor_limit, bad_limit), words in (
        (
            health['frozen_share'],
            (POOR_FROZEN_SHARE, BAD_FROZEN_SHARE),
            'the image stood still in {} of the frames with a command to move',
        ),
        (
            health['dark_share'],
            (POOR_DARK_SHARE, BAD_DARK_SHARE),
            'the image is dark in {} of the sampled frames: a lens cap, or no light',
        ),
        (
            health['blurred_share'],
            (POOR_BLURRED_SHARE, 1.0),
            'the image is blurred in {} of the sampled frames: out of focus, a dirty lens, '
            'or turned too fast',
        ),
    ):
        if share > poor_limit:
            (bad if share > bad_limit else poor).append(words.format(f'{share:.0%}'))
