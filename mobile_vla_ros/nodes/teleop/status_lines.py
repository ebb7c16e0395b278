"""What the console shows of the other nodes, line by line. No ROS here."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mobile_vla_ros.nodes.teleop import joystick
from mobile_vla_ros.nodes.teleop.terminal import Row
from mobile_vla_ros.safety.status import STATUS_MAX_AGE_S, GuardStatus

LOW_DISK_MIN, LONG_DISK_MIN = 10.0, 600.0
MOST_CHOICES = 9  # as many as there are digits to choose with
JOYSTICKS = {
    joystick.NEVER: '',
    joystick.READY: 'joystick ready',
    joystick.DRIVING: 'joystick drives',
    joystick.SILENT: 'joystick silent',
    joystick.BLOCKED: 'joystick blocked: let go of its button',
}


class Heard(NamedTuple):
    """
    The newest status of a node.

    :param time_s: when it came, on a clock that never jumps.
    :param values: as the node gave them, all of them text.
    """

    time_s: float
    state: str
    values: Mapping[str, str]


def fresh(heard: Heard | None, now_s: float) -> Heard | None:
    """Return what was heard unless it is too old to be true."""
    return heard if heard is not None and now_s - heard.time_s < STATUS_MAX_AGE_S else None


def guard_report(heard: Heard | None, now_s: float) -> GuardStatus | None:
    """Return the guard's report; None when it is too old or does not say whether it is armed."""
    newest = fresh(heard, now_s)
    return None if newest is None else GuardStatus.parse(newest.state, newest.values)


def rows(
    now_s: float, recorder: Heard | None, guard: Heard | None, throttle: float, stick: str
) -> list[Row]:
    """
    Return the lines of the state: the take, its instruction, the last one, who drives.

    :param throttle: share of full speed, 0 to 1.
    :param stick: state of the joystick (``Joystick.state``).
    """
    said = fresh(recorder, now_s)
    lines = (
        [*_recorder(said), _drive(now_s, guard, throttle, stick)]
        if said
        else [
            Row(_absent('recorder', now_s, recorder), 'alarm' if recorder else 'strong'),
            _drive(now_s, guard, throttle, stick),
        ]
    )
    if said and said.values.get('problem'):
        lines.append(Row(f'! {said.values["problem"]}', 'strong', height=2))
    return lines


def typing_rows(typed: str, choices: Sequence[str], takes: Mapping[str, int]) -> list[Row]:
    """Return the lines that ask for an instruction, with those that exist to choose from."""
    chosen = f'  = {choices[int(typed) - 1]}' if is_choice(typed, choices) else ''
    return [
        Row(f'instruction (Enter: take it, Esc: leave it): {typed}_{chosen}', 'strong'),
        *(
            Row(f'  {number}  {text}  ({_takes(takes.get(text, 0))})')
            for number, text in enumerate(choices, 1)
        ),
    ]


def is_choice(typed: str, choices: Sequence[str]) -> bool:
    """Whether what was typed is the number of a choice."""
    return typed in {str(number) for number in range(1, len(choices) + 1)}


def takes_of(heard: Heard | None) -> dict[str, int]:
    """Return takes of each instruction, as the recorder counts them; empty when it does not."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        counts = json.loads(heard.values.get('takes') or '{}')
        return {str(text): int(count) for text, count in counts.items()}
    return {}


def choices_of(takes: Mapping[str, int]) -> list[str]:
    """Return the instructions that digits choose from: those with the most takes, by name."""
    most = sorted(takes, key=lambda text: -takes[text])[:MOST_CHOICES]
    return sorted(text for text in most if text)


def _recorder(heard: Heard) -> list[Row]:
    values = heard.values
    rate = f'{values.get("camera_hz", "?")} Hz'
    expected = _number(values.get('expected_hz'))
    if expected:
        rate = f'{values.get("camera_hz", "?")} of {expected:.1f} Hz'
    disk, low = _disk(values.get('disk_minutes', ''))
    if heard.state == 'recording':
        parts = [
            f'REC {_clock(values.get("seconds"))}',
            f'{values.get("frames", "?")} frames',
            rate,
            f'queue {values.get("queue", "?")}',
            f'{values.get("drops", "?")} dropped',
            disk,
        ]
    else:
        parts = [heard.state, f'camera {rate}', disk]
    style = 'alarm' if heard.state == 'recording' or low else 'strong'
    return [
        Row(', '.join(part for part in parts if part), style),
        _instruction(values, takes_of(heard)),
        *_last(values),
    ]


def _instruction(values: Mapping[str, str], takes: Mapping[str, int]) -> Row:
    instruction = values.get('instruction', '')
    if not instruction:
        return Row('no instruction yet: press I and type one', 'strong')
    if not takes:
        return Row(f'"{instruction}"')
    others = {text: count for text, count in takes.items() if text != instruction}
    kinds = f'{len(others)} other instruction{"s" if len(others) > 1 else ""}'
    more = f', {sum(others.values())} of {kinds}' if others else ''
    return Row(f'"{instruction}": {_takes(takes.get(instruction, 0))}{more}', height=2)


def _last(values: Mapping[str, str]) -> list[Row]:
    verdict, reasons = values.get('last_verdict', ''), values.get('last_reasons', '')
    if not verdict:
        return []
    text = f'{verdict}: {reasons}' if reasons else verdict
    return [Row(f'last take {text}', 'plain' if verdict == 'good' else 'strong', height=2)]


def _drive(now_s: float, guard: Heard | None, throttle: float, stick: str) -> Row:
    status = guard_report(guard, now_s)
    armed = status is not None and status.armed
    if status is not None:
        text = f'guard {status.state}' + (f': {status.sentence}' if status.sentence else '')
        text += '' if armed else ' (X arms it)'
    elif fresh(guard, now_s):
        text = 'the guard does not report whether it is armed (X disarms it)'
    else:
        text = _absent('guard', now_s, guard)
    parts = [f'throttle {throttle:.0%}', text, JOYSTICKS[stick]]
    style = 'plain' if armed and stick not in (joystick.SILENT, joystick.BLOCKED) else 'strong'
    return Row(' | '.join(part for part in parts if part), style)


def _absent(name: str, now_s: float, heard: Heard | None) -> str:
    if heard is None:
        return f'no {name} heard yet'
    return f'{name} silent for {now_s - heard.time_s:.0f} s (it was {heard.state})'


def _takes(count: int) -> str:
    return f'{count} take' if count == 1 else f'{count} takes'


def _clock(seconds: str | None) -> str:
    value = _number(seconds)
    return '?' if value is None else f'{int(value) // 60}:{int(value) % 60:02d}'


def _disk(minutes: str) -> tuple[str, bool]:
    """Return the room left in words, and whether it is little."""
    value = _number(minutes)
    if value is None:
        return '', False
    if value < LONG_DISK_MIN:
        return f'disk {value:.0f} min', value < LOW_DISK_MIN
    return f'disk {value / 60:.0f} h', False


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
