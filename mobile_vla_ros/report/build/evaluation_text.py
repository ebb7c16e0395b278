"""What `mobile_vla evaluate` prints: the tables, and what they mean."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping

NAME_WIDTH = 28
STEP_WIDTH = 7
NARROWEST, WIDEST = 80, 120
CONTROLS = {
    'image_blanked': 'image blanked',
    'frames_shuffled': 'frames shuffled',
    'instruction_swapped': 'instruction swapped',
}
# Heads, widths and formats of the columns.
LOSSES = (('loss_arm_act', 14, '.5f'), ('loss', 9, '.5f'))
METRICS = (('mae', 8, '.3f'), ('rmse', 7, '.3f'), ('r2', 8, 'z.2f'), ('sign_agreement', 6, '.0%'))
SHORT = {'sign_agreement': 'sign'}


def text(result: Mapping) -> str:
    """Return the result as tables and what they mean, as wide as the terminal."""
    width = min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)
    lines = [*_table(result, width), '', *_wrapped(_about(result), width)]
    policy = result.get('policy')
    if policy and policy['loss'] is not None:
        lines += ['', *_by_step(result, width)]
    said = policy['verdict'] if policy else [_without_a_policy(result)]
    for sentence in ['', *said, *_data(result)]:
        lines += _wrapped(sentence, width)
    return '\n'.join(lines)


def _axes(result: Mapping) -> list[str]:
    return [name for name, value in result['baselines']['zero'].items() if isinstance(value, dict)]


def _table(result: Mapping, width: int) -> Iterator[str]:
    """Give the predictors by their metrics; axes that find no room come below each other."""
    rows = dict(result['baselines'])
    policy = result.get('policy')
    if policy:
        rows['policy'] = policy
        rows |= {
            f'policy, {words}': policy[name] for name, words in CONTROLS.items() if policy[name]
        }
    blocks = [('', LOSSES, rows)]
    for axis in _axes(result):
        own = {name: row[axis] for name, row in rows.items()}
        blocks.append((f'  {axis}, {own["zero"]["unit"]}', METRICS, own))
    while blocks:
        shown, used = [], NAME_WIDTH
        while blocks and (not shown or used + _width(blocks[0][1]) <= width):
            shown.append(blocks.pop(0))
            used += _width(shown[-1][1])
        heads = ''.join(head.ljust(_width(columns)) for head, columns, _ in shown)
        if heads.strip():
            yield ' ' * NAME_WIDTH + heads.rstrip()
        yield ' ' * NAME_WIDTH + ''.join(
            f'{SHORT.get(name, name):>{wide}}'
            for _, columns, _ in shown
            for name, wide, _ in columns
        )
        for name in rows:
            yield f'{name:{NAME_WIDTH}}' + ''.join(
                f'{_cell(values[name][column], form):>{wide}}'
                for _, columns, values in shown
                for column, wide, form in columns
            )
        if blocks:
            yield ''


def _width(columns) -> int:
    return sum(wide for _, wide, _ in columns)


def _cell(value: float | None, form: str) -> str:
    return '–' if value is None else format(value, form)


def _by_step(result: Mapping, width: int) -> Iterator[str]:
    """Give the policy beside the best baseline, chunk step by chunk step."""
    policy, best = result['policy'], result['policy']['best_baseline']
    axes = _axes(result)
    chunk = len(policy[axes[0]]['per_step']['mae'])
    count = min(chunk, (width - NAME_WIDTH - 8) // STEP_WIDTH)
    steps = sorted({round(number * (chunk - 1) / max(1, count - 1)) for number in range(count)})
    yield f'{"seconds ahead":{NAME_WIDTH + 8}}' + ''.join(
        f'{step / result["rate_hz"]:>{STEP_WIDTH}.3g}' for step in steps
    )
    for axis in axes:
        for column, _, form in (METRICS[0], METRICS[2]):
            for name, entry in (('policy', policy), (best, result['baselines'][best])):
                values = entry[axis]['per_step'][column]
                head = f'{axis} {column}' if name == 'policy' else ''
                yield f'{head:{14}} {name[:20]:{21}}' + ''.join(
                    f'{_cell(values[step], form):>{STEP_WIDTH}}' for step in steps
                )


def _about(result: Mapping) -> str:
    """Say what was measured."""
    episodes = result['episodes']
    measured = f'measured on {_takes(episodes["val"])} ({result["windows"]} windows)'
    blind = result['blind']
    if result.get('policy', {}).get('trained_on'):
        means = 'the same takes'
    elif blind['source'] == 'bundle':
        means = "the policy's bundle" + (
            f', of the {_takes(blind["takes"])} that it was trained on' if blind['takes'] else ''
        )
    else:
        means = f'{_takes(blind["takes"])} of the training side'
    return (
        f'{measured}; the means come from {means}; {result["rate_hz"]:.4g} steps a second; '
        'sign: steps on which the prediction has the sign of what was driven'
    )


def _takes(count: int) -> str:
    return f'{count} {"take" if count == 1 else "takes"}'


def _without_a_policy(result: Mapping) -> str:
    baselines = result['baselines']
    best = min(baselines, key=lambda name: baselines[name]['loss'])
    return (
        f'A policy must have a loss below {baselines[best]["loss"]:.5f} ({best}) to be better '
        'than predictors that see no image.'
    )


def _data(result: Mapping) -> Iterator[str]:
    """Say what is wrong with the data."""
    yield from result['notes']
    for sentence in result.get('policy', {}).get('broken', ()):
        yield f'not measured: {sentence}'
    if result['skipped']:
        yield f'takes left out: {len(result["skipped"])}'
    for path, reason in result['skipped'].items():
        yield f'left out: {path}: {reason}'


def _wrapped(sentence: str, width: int) -> list[str]:
    return textwrap.wrap(
        sentence, width, subsequent_indent='  ', break_long_words=False, break_on_hyphens=False
    ) or ['']
