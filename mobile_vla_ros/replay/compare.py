"""Measure a policy's commands along an episode against the driven ones, and print the result."""

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from mobile_vla_ros import text_table
from mobile_vla_ros.evaluation.metrics import DRIVEN_SHARE
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.replay.run import Replayed
from mobile_vla_ros.types import NANOSECONDS, TWIST_AXES, ActionSpec

# Heads and formats of the columns.
METRICS = {
    'mae': ('mae', '.3f'),
    'rmse': ('rmse', '.3f'),
    'bias': ('bias', '+.3f'),
    'sign_flips': ('flips', '.0%'),
}
MAX_LINES = 10  # printed of gaps, refused windows and notes


def predictors(found: Replayed, spec: PolicySpec) -> dict[str, np.ndarray]:
    """
    Return the commands of the policy and of predictors without input, where it commands any.

    :returns: name → (K, 6) m/s and rad/s; with `mean_action` if the bundle has it.
    """
    commanded = found.commanded
    zero = np.zeros((int(commanded.sum()), len(TWIST_AXES)))
    rows = {'policy': found.twist[commanded], 'zero': zero}
    mean = spec.data.get('mean_action')
    if mean is not None and len(mean) == len(spec.actions.axes):
        rows['mean_action'] = zero.copy()
        rows['mean_action'][:, spec.actions.columns] = mean
    rows['repeat_last'] = found.before[commanded]
    return rows


def measured(predicted: np.ndarray, driven: np.ndarray, spec: ActionSpec) -> dict[str, dict]:
    """
    Measure commands against the commands driven at the same instants.

    :param predicted: (K, 6) m/s and rad/s; likewise `driven`.
    :returns: for each axis its `unit`; `mae`, `rmse` and `bias` (mean of predicted minus driven)
        in that unit; and `sign_flips`, the share of instants at which both are faster than
        `DRIVEN_SHARE` of the scale and have opposite signs. None without instants.
    """
    result = {}
    for axis, column, scale, unit in zip(
        spec.axes, spec.columns, spec.scale, spec.units, strict=True
    ):
        one, other = predicted[:, column], driven[:, column]
        error, slow = one - other, DRIVEN_SHARE * scale
        flips = (np.abs(one) > slow) & (np.abs(other) > slow) & (np.sign(one) != np.sign(other))
        values = {'mae': np.abs(error), 'bias': error, 'sign_flips': flips}
        means = {
            name: float(value.mean()) if len(value) else None for name, value in values.items()
        }
        rmse = float(np.sqrt((error**2).mean())) if len(error) else None
        result[axis] = {
            'unit': unit,
            'mae': means['mae'],
            'rmse': rmse,
            'bias': means['bias'],
            'sign_flips': means['sign_flips'],
        }
    return result


def summary(found: Replayed, spec: PolicySpec) -> dict:
    """
    Return what `mobile_vla replay --json` prints, except the episode, the machine and `live`.

    `frames`; `plans`, frames that yielded a plan; `instants`, frames with a command; `measured`:
    predictor → axis → metrics (`measured`); `pace`: `step_ms` (median of the steps that encoded
    one frame), `p95_ms`, `slowest_ms`, `first_ms`, `period_ms` of the policy, and whether it
    `keeps_up`; `gaps`, `refused` and `notes`: sentences.
    """
    driven = found.driven[found.commanded]
    ms = np.array(found.seconds) * 1e3
    period_ms = 1e3 / spec.rate_hz
    return {
        'instruction': found.instruction,
        'frames': len(found.now_ns),
        'plans': int(found.new.sum()),
        'instants': len(driven),
        'measured': {
            name: measured(rows, driven, spec.actions)
            for name, rows in predictors(found, spec).items()
        },
        'pace': {
            'step_ms': float(np.median(ms)) if len(ms) else None,
            'p95_ms': float(np.percentile(ms, 95)) if len(ms) else None,
            'slowest_ms': float(ms.max()) if len(ms) else None,
            'first_ms': found.first_s * 1e3 if found.first_s is not None else None,
            'period_ms': period_ms,
            'keeps_up': bool(np.median(ms) <= period_ms) if len(ms) else None,
        },
        'gaps': found.gaps,
        'refused': found.refused,
        'notes': found.notes,
    }


def traces(found: Replayed, spec: ActionSpec) -> tuple[Any, dict[str, tuple[str, Any, Any]]]:
    """Return (N,) seconds, and for each axis its unit and (N,) predicted and driven values."""
    return (found.now_ns - found.now_ns[0]) / NANOSECONDS, {
        axis: (unit, found.twist[:, column], found.driven[:, column])
        for axis, column, unit in zip(spec.axes, spec.columns, spec.units, strict=True)
    }


def text(result: Mapping) -> str:
    """Return the result as a table and sentences."""
    lines = [
        f'{result["episode"]}: {result["instruction"]!r}',
        f'{result["frames"]} frames, {result["plans"]} plans, measured at '
        f'{result["instants"]} instants against the driven commands',
        '',
        _table(result['measured']),
        '',
        _pace(result),
    ]
    for key in ('gaps', 'refused', 'notes'):
        found = result[key]
        lines += found[:MAX_LINES]
        if len(found) > MAX_LINES:
            lines.append(f'and {len(found) - MAX_LINES} more (listed by --json)')
    if result.get('live'):
        lines += ['', result['live']['sentence']]
    return '\n'.join(lines)


def _table(rows: Mapping[str, Mapping]) -> str:
    groups = {
        f'{axis}, {entry["unit"]}': text_table.cells((row[axis] for row in rows.values()), METRICS)
        for axis, entry in rows['policy'].items()
    }
    return text_table.grouped(list(rows), groups, shutil.get_terminal_size((120, 24)).columns) + (
        '\nbias: mean of predicted minus driven; flips: share of instants at which both move, in '
        'opposite directions'
    )


def _pace(result: Mapping) -> str:
    pace = result['pace']
    if pace['step_ms'] is None:
        return 'no step was timed'
    keeps = 'keeps up with' if pace['keeps_up'] else 'does NOT keep up with'
    return (
        f'a step takes {pace["step_ms"]:.1f} ms (95 % within {pace["p95_ms"]:.1f}, slowest '
        f'{pace["slowest_ms"]:.1f}, the first {pace["first_ms"]:.0f}) on {result["device"]}, '
        f'{result["precision"]}, {result["threads"]} threads: it {keeps} the '
        f"policy's {pace['period_ms']:.0f} ms"
    )
