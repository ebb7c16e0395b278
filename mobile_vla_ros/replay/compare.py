"""What a policy says along an episode, measured against what was driven, and printed."""

import shutil
from collections.abc import Mapping

import numpy as np

from mobile_vla_ros import text_table
from mobile_vla_ros.evaluation.metrics import DRIVEN_SHARE
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.replay.run import Replayed
from mobile_vla_ros.types import TWIST_AXES, ActionSpec

# Heads and formats of the columns.
METRICS = {
    'mae': ('mae', '.3f'),
    'rmse': ('rmse', '.3f'),
    'bias': ('bias', '+.3f'),
    'sign_flips': ('flips', '.0%'),
}
MAX_LINES = 10  # of gaps and of refused windows


def predictors(found: Replayed, spec: PolicySpec) -> dict[str, np.ndarray]:
    """
    Return what the policy, and predictors that see nothing, say where the policy says something.

    :returns: name → (K, 6) m/s and rad/s. `mean_action` is there when the bundle knows it.
    """
    said = found.said
    zero = np.zeros((int(said.sum()), len(TWIST_AXES)))
    rows = {'policy': found.twist[said], 'zero': zero}
    mean = spec.data.get('mean_action')
    if mean is not None and len(mean) == len(spec.actions.axes):
        rows['mean_action'] = zero.copy()
        rows['mean_action'][:, spec.actions.columns] = mean
    rows['repeat_last'] = found.before[said]
    return rows


def measured(predicted: np.ndarray, driven: np.ndarray, spec: ActionSpec) -> dict[str, dict]:
    """
    Measure commands against what was driven at the same instants.

    :param predicted: (K, 6) m/s and rad/s; likewise `driven`.
    :returns: for each axis `unit`; `mae`, `rmse` and `bias` (the mean of predicted minus driven)
        in it; and `sign_flips`, the share of the instants at which both are faster than
        `DRIVEN_SHARE` of the scale and go opposite ways. None where there is no instant.
    """
    result = {}
    for axis, column, scale, unit in zip(
        spec.axes, spec.columns, spec.scale, spec.units, strict=True
    ):
        said, done = predicted[:, column], driven[:, column]
        error, slow = said - done, DRIVEN_SHARE * scale
        flips = (np.abs(said) > slow) & (np.abs(done) > slow) & (np.sign(said) != np.sign(done))
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
    Return what `mobile_vla replay --json` prints, but for the episode, the machine and `live`.

    `frames`, `plans` (frames that gave one) and `instants` (frames at which something is
    commanded); `measured`: predictor → axis → metrics (`measured`); `pace`: `step_ms` (median of
    the steps that encoded one frame), `p95_ms`, `slowest_ms`, `first_ms`, `period_ms` of the
    policy, and whether it `keeps_up`; `gaps`, `refused` and `notes`: sentences.
    """
    driven = found.driven[found.said]
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


def text(result: Mapping) -> str:
    """Return the result as a table and sentences."""
    lines = [
        f'{result["episode"]}: {result["instruction"]!r}',
        f'{result["frames"]} frames, {result["plans"]} plans, measured at '
        f'{result["instants"]} instants against what was driven then',
        '',
        _table(result['measured']),
        '',
        _pace(result),
    ]
    for what in ('gaps', 'refused', 'notes'):
        found = result[what]
        lines += found[:MAX_LINES]
        if len(found) > MAX_LINES:
            lines.append(f'and {len(found) - MAX_LINES} more like it (--json names them)')
    if result.get('live'):
        lines += ['', result['live']['sentence']]
    return '\n'.join(lines)


def _table(rows: Mapping[str, Mapping]) -> str:
    groups = {
        f'{axis}, {known["unit"]}': text_table.cells((row[axis] for row in rows.values()), METRICS)
        for axis, known in rows['policy'].items()
    }
    return text_table.grouped(list(rows), groups, shutil.get_terminal_size((120, 24)).columns) + (
        '\nbias: predicted minus driven; flips: share of the instants at which both go, and '
        'opposite ways'
    )


def _pace(result: Mapping) -> str:
    pace = result['pace']
    if pace['step_ms'] is None:
        return 'no step to time'
    keeps = 'keeps up with' if pace['keeps_up'] else 'does NOT keep up with'
    return (
        f'a step takes {pace["step_ms"]:.1f} ms (95 % within {pace["p95_ms"]:.1f}, slowest '
        f'{pace["slowest_ms"]:.1f}, the first {pace["first_ms"]:.0f}) on {result["device"]}, '
        f'{result["precision"]}, {result["threads"]} threads: it {keeps} the '
        f"policy's {pace['period_ms']:.0f} ms"
    )
