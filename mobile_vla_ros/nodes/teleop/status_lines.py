"""The state of the other nodes as lines of the console. No ROS here."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mobile_vla_ros.nodes.teleop import joystick
from mobile_vla_ros.nodes.teleop.terminal import Row
from mobile_vla_ros.safety.status import (
    STATUS_MAX_AGE_S,
    GuardStatus,
    StopReason,
    Unusable,
    counts,
    number,
)

LOW_DISK_MIN, LONG_DISK_MIN = 10.0, 600.0
MAX_CHOICES = 9  # one digit each
JOYSTICKS = {
    joystick.NEVER: '',
    joystick.READY: 'joystick ready',
    joystick.DRIVING: 'joystick drives',
    joystick.SILENT: 'joystick silent',
    joystick.BLOCKED: 'joystick blocked: release its button',
}


class NodeReport(NamedTuple):
    """
    The newest status of a node.

    :param time_s: time of receipt, on a clock that never jumps.
    :param values: all of them text.
    """

    time_s: float
    state: str
    values: Mapping[str, str]


def fresh(report: NodeReport | None, now_s: float) -> NodeReport | None:
    """Return a report, or None if it is too old."""
    return report if report is not None and now_s - report.time_s < STATUS_MAX_AGE_S else None


def guard_report(report: NodeReport | None, now_s: float) -> GuardStatus | None:
    """Return the guard's status; None if it is too old or does not report whether it is armed."""
    newest = fresh(report, now_s)
    return None if newest is None else GuardStatus.parse(newest.state, newest.values)


def rows(
    now_s: float,
    recorder: NodeReport | None,
    guard: NodeReport | None,
    throttle: float,
    stick: str,
) -> list[Row]:
    """
    Return the lines of the state: the episode, its instruction, the last verdict, who drives.

    :param throttle: fraction of full speed, 0 to 1.
    :param stick: state of the joystick (``Joystick.state``).
    """
    newest = fresh(recorder, now_s)
    drive = _drive(now_s, guard, throttle, stick)
    if newest is None:
        style = 'alarm' if recorder else 'strong'
        return [Row(_absent('recorder', now_s, recorder), style), drive]
    lines = [*_recorder(newest), drive]
    if newest.values.get('problem'):
        lines.append(Row(f'! {newest.values["problem"]}', 'strong', height=2))
    return lines


def typing_rows(typed: str, choices: Sequence[str], episodes: Mapping[str, int]) -> list[Row]:
    """Return the lines that ask for an instruction, with the existing ones to choose from."""
    chosen = f'  = {choices[int(typed) - 1]}' if is_choice(typed, choices) else ''
    return [
        Row(f'instruction (Enter: set it, Esc: cancel): {typed}_{chosen}', 'strong'),
        *(
            Row(f'  {number}  {text}  ({_count(episodes.get(text, 0))})')
            for number, text in enumerate(choices, 1)
        ),
    ]


def is_choice(typed: str, choices: Sequence[str]) -> bool:
    """Return whether the typed text is the number of a choice."""
    return typed in {str(number) for number in range(1, len(choices) + 1)}


def episodes_of(recorder: NodeReport | None) -> dict[str, int]:
    """Return the episodes per instruction, as the recorder counts them; empty if it does not."""
    if recorder is None:
        return {}
    with contextlib.suppress(Unusable):
        return counts(recorder.values.get('takes', ''))
    return {}


def choices_of(episodes: Mapping[str, int]) -> list[str]:
    """Return the instructions that digits select: those with the most episodes, by name."""
    most = sorted(episodes, key=lambda text: -episodes[text])[:MAX_CHOICES]
    return sorted(text for text in most if text)


def _recorder(report: NodeReport) -> list[Row]:
    values = report.values
    rate = f'{values.get("camera_hz", "?")} Hz'
    expected = number(values.get('expected_hz'))
    if expected:
        rate = f'{values.get("camera_hz", "?")} of {expected:.1f} Hz'
    disk, low = _disk(values.get('disk_minutes', ''))
    if report.state == 'recording':
        parts = [
            f'REC {_clock(values.get("seconds"))}',
            f'{values.get("frames", "?")} frames',
            rate,
            f'queue {values.get("queue", "?")}',
            f'{values.get("drops", "?")} dropped',
            disk,
        ]
    else:
        parts = [report.state, f'camera {rate}', disk]
    style = 'alarm' if report.state == 'recording' or low else 'strong'
    return [
        Row(', '.join(part for part in parts if part), style),
        _instruction(values, episodes_of(report)),
        *_last(values),
    ]


def _instruction(values: Mapping[str, str], episodes: Mapping[str, int]) -> Row:
    instruction = values.get('instruction', '')
    if not instruction:
        return Row('no instruction yet: press I and type one', 'strong')
    if not episodes:
        return Row(f'"{instruction}"')
    others = {text: count for text, count in episodes.items() if text != instruction}
    kinds = f'{len(others)} other instruction{"s" if len(others) > 1 else ""}'
    more = f', {sum(others.values())} of {kinds}' if others else ''
    return Row(f'"{instruction}": {_count(episodes.get(instruction, 0))}{more}', height=2)


def _last(values: Mapping[str, str]) -> list[Row]:
    verdict, reasons = values.get('last_verdict', ''), values.get('last_reasons', '')
    if not verdict:
        return []
    text = f'{verdict}: {reasons}' if reasons else verdict
    return [Row(f'last episode {text}', 'plain' if verdict == 'good' else 'strong', height=2)]


def _drive(now_s: float, guard: NodeReport | None, throttle: float, stick: str) -> Row:
    status = guard_report(guard, now_s)
    armed = status is not None and status.armed
    if status is not None:
        text = f'guard {status.state}' + (f': {status.sentence}' if status.sentence else '')
        text += '' if armed else ' (X arms it)'
        text += ' (P)' if status.stop_reason == StopReason.AWAITING_RESUME else ''
    elif fresh(guard, now_s):
        text = 'the guard does not report whether it is armed (X disarms it)'
    else:
        text = _absent('guard', now_s, guard)
    parts = [f'throttle {throttle:.0%}', text, JOYSTICKS[stick]]
    style = 'plain' if armed and stick not in (joystick.SILENT, joystick.BLOCKED) else 'strong'
    return Row(' | '.join(part for part in parts if part), style)


def _absent(name: str, now_s: float, report: NodeReport | None) -> str:
    if report is None:
        return f'no {name} yet'
    return f'{name} silent for {now_s - report.time_s:.0f} s (it was {report.state})'


def _count(episodes: int) -> str:
    return f'{episodes} episode' if episodes == 1 else f'{episodes} episodes'


def _clock(seconds: str | None) -> str:
    value = number(seconds)
    return '?' if value is None else f'{int(value) // 60}:{int(value) % 60:02d}'


def _disk(minutes: str) -> tuple[str, bool]:
    """Return the room left in words, and whether it is low."""
    value = number(minutes)
    if value is None:
        return '', False
    if value < LONG_DISK_MIN:
        return f'disk {value:.0f} min', value < LOW_DISK_MIN
    return f'disk {value / 60:.0f} h', False
