"""The output of `mobile_vla evaluate`: tables, and sentences that explain them."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping

from mobile_vla_ros.text_table import GAP, cells, grouped, number, table

NAME_WIDTH = 20
MIN_WIDTH, MAX_WIDTH = 80, 120
CONTROLS = {
    'image_blanked': 'image blanked',
    'frames_shuffled': 'frames shuffled',
    'instruction_swapped': 'instruction swapped',
}
# Heads and formats of the columns.
LOSSES = {'loss_arm_act': ('loss_arm_act', '.5f'), 'loss': ('loss', '.5f')}
METRICS = {
    'mae': ('mae', '.3f'),
    'rmse': ('rmse', '.3f'),
    'r2': ('r2', 'z.2f'),
    'sign_agreement': ('sign', '.0%'),
}


def text(result: Mapping) -> str:
    """Return the result as tables and sentences, as wide as the terminal."""
    width = min(max(shutil.get_terminal_size((MAX_WIDTH, 24)).columns, MIN_WIDTH), MAX_WIDTH)
    lines = [_table(result, width), '', *_wrapped(_about(result), width)]
    policy = result.get('policy')
    if policy and policy['loss'] is not None:
        lines += ['', _by_step(result, width)]
    verdict = policy['verdict'] if policy else [_without_a_policy(result)]
    for sentence in ['', *verdict, *_data(result)]:
        lines += _wrapped(sentence, width)
    return '\n'.join(lines)


def _axes(result: Mapping) -> list[str]:
    return [name for name, value in result['baselines']['zero'].items() if isinstance(value, dict)]


def _table(result: Mapping, width: int) -> str:
    """Return the metrics of each predictor; axes that do not fit go below each other."""
    rows = dict(result['baselines'])
    policy = result.get('policy')
    if policy:
        rows['policy'] = policy
        rows |= {
            f'policy, {words}': policy[name] for name, words in CONTROLS.items() if policy[name]
        }
    groups = {'': cells(rows.values(), LOSSES)}
    for axis in _axes(result):
        title = f'{axis}, {rows["zero"][axis]["unit"]}'
        groups[title] = cells((row[axis] for row in rows.values()), METRICS)
    return grouped(list(rows), groups, width)


def _by_step(result: Mapping, width: int) -> str:
    """Return the policy beside the best baseline, for as many chunk steps as fit."""
    policy, best = result['policy'], result['policy']['best_baseline']
    axes = _axes(result)
    chunk = len(policy[axes[0]]['per_step']['mae'])
    rows = [['seconds ahead', '', *(f'{step / result["rate_hz"]:.3g}' for step in range(chunk))]]
    for axis in axes:
        for column in ('mae', 'r2'):
            for name, entry in (('policy', policy), (best, result['baselines'][best])):
                head = f'{axis} {column}' if name == 'policy' else ''
                values = entry[axis]['per_step'][column]
                shown = [number(value, METRICS[column][1]) for value in values]
                rows.append([head, name[:NAME_WIDTH], *shown])
    used = sum(max(len(row[column]) for row in rows) + len(GAP) for column in (0, 1)) - len(GAP)
    wide = max(len(cell) for row in rows for cell in row[2:]) + len(GAP)
    count = min(chunk, (width - used) // wide)
    steps = sorted({round(place * (chunk - 1) / max(1, count - 1)) for place in range(count)})
    return table([row[:2] + [row[2 + step] for step in steps] for row in rows], '<<>')


def _about(result: Mapping) -> str:
    """Return a sentence on the data and the columns."""
    episodes = result['episodes']
    measured = f'measured on {_episodes(episodes["val"])} ({result["windows"]} windows)'
    blind = result['blind']
    if result.get('policy', {}).get('trained_on'):
        means = 'the same episodes'
    elif blind['source'] == 'bundle':
        means = "the policy's bundle" + (
            f', of the {_episodes(blind["takes"])} that it was trained on'
            if blind['takes']
            else ''
        )
    else:
        means = f'{_episodes(blind["takes"])} of the training side'
    return (
        f'{measured}; the means come from {means}; {result["rate_hz"]:.4g} steps a second; '
        'sign: share of steps with the sign of the driven action'
    )


def _episodes(count: int) -> str:
    return f'{count} {"episode" if count == 1 else "episodes"}'


def _without_a_policy(result: Mapping) -> str:
    baselines = result['baselines']
    best = min(baselines, key=lambda name: baselines[name]['loss'])
    return (
        f'A policy must have a loss below {baselines[best]["loss"]:.5f} ({best}) to be better '
        'than predictors that see no image.'
    )


def _data(result: Mapping) -> Iterator[str]:
    """Yield sentences on problems of the data."""
    yield from result['notes']
    for sentence in result.get('policy', {}).get('broken', ()):
        yield f'not measured: {sentence}'
    if result['skipped']:
        yield f'episodes left out: {len(result["skipped"])}'
    for path, reason in result['skipped'].items():
        yield f'left out: {path}: {reason}'


def _wrapped(sentence: str, width: int) -> list[str]:
    return textwrap.wrap(
        sentence, width, subsequent_indent='  ', break_long_words=False, break_on_hyphens=False
    ) or ['']
