"""The page of a training, or of an evaluation: is the policy any good, and where is it not."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mobile_vla_ros.report.figures import training_plots
from mobile_vla_ros.report.figures.plots import INK, POLICY
from mobile_vla_ros.report.pages import page
from mobile_vla_ros.report.pages.training_view import TrainingView

# Epochs and instructions that a table shows before the rest is folded away.
MOST_ROWS = 20

STYLE = """
.verdict { background: #fff; border: 1px solid #d9dee3; border-left: 6px solid #b56a00;
  border-radius: 8px; padding: 8px 20px; margin: 18px 0; }
.verdict.good { border-left-color: #0b7a4b; } .verdict.bad { border-left-color: #b3261e; }
.verdict p { max-width: none; overflow-wrap: anywhere; font-size: 17px; }
ul { margin: 6px 0; padding-left: 20px; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.card { padding: 10px 14px; } .card b { font-size: 25px; }
.wide { overflow-x: auto; }
.wide table { font-size: 14px; font-variant-numeric: tabular-nums; }
.wide th, .wide td { padding: 5px 8px; }
.measures td:first-child { white-space: nowrap; } .many table { font-size: 13px; }
.many th, .many td { padding: 5px 5px; }
h3 { font-size: 16px; margin: 22px 0 4px; overflow-wrap: anywhere; }
h3 + p { margin-top: 0; max-width: none; color: #59636e; }
summary { cursor: pointer; margin: 10px 0; color: #59636e; }
.key { max-width: none; }
.key i { display: inline-block; width: 22px; border-top: 3px solid; vertical-align: middle;
  margin: 0 6px 0 14px; }
.worst { background: #fff; border: 1px solid #d9dee3; border-radius: 10px; padding: 10px 14px;
  margin: 12px 0; }
.worst h3 { margin: 0 0 2px; } .worst p { max-width: none; font-size: 14px; margin: 4px 0; }
.frames { display: flex; gap: 8px; }
.frames div { flex: 1 1 0; min-width: 0; max-width: 254px; font-size: 12px; color: #59636e; }
.frames img { width: 100%; display: block; border-radius: 4px; }
.no { color: #b3261e; }
th.text, td.text { text-align: left; max-width: 80ch; overflow-wrap: anywhere; }
"""


def training_page(view: TrainingView) -> str:
    """Return the whole page; it needs nothing from outside, and no script."""
    parts = [
        f'<div class="verdict {view.mood}">'
        + ''.join(map(page.paragraph, view.lead))
        + _items(view.verdict)
        + '</div>',
        page.cards(view.cards),
    ]
    if view.history:
        parts += _curves(view)
    parts += [
        *_measures(view),
        *_scatter(view),
        *_chunk(view),
        *_drives(view),
        *_worst(view),
        *_coverage(view),
        *_facts(view),
    ]
    return page.page(view.title, view.subtitle, parts, style=STYLE)


def number(value, digits: int = 3) -> str:
    """Return a number as it is to be read; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return '–' if value is None else str(value)
    if not math.isfinite(value):
        return '–'
    text = f'{value:.{digits}f}'
    return text.lstrip('-') if float(text) == 0 else text.replace('-', '−')


def _column(history: Sequence[Mapping], name: str) -> list[float]:
    values = [row.get(name) for row in history]
    return [float('nan') if value is None else float(value) for value in values]


def _curves(view: TrainingView) -> list[str]:
    panels = [
        (
            name,
            {
                side: _column(view.history, f'{key}_{loss}')
                for side, key in (('training', 'train'), ('validation', 'val'))
            },
            {blind: view.metrics[blind][loss] for blind in view.blind},
        )
        for name, loss in (('loss', 'loss'), ('loss_arm_act', 'loss_arm_act'))
        if any(f'val_{loss}' in row for row in view.history)
    ]
    epochs = [row.get('epoch', place) for place, row in enumerate(view.history)]
    names = [
        'epoch',
        'train_loss',
        'val_loss',
        'train_loss_arm_act',
        'val_loss_arm_act',
        *(f'val_mae_{axis}' for axis, _ in view.axes),
    ]
    names = [name for name in names if any(name in row for row in view.history) or name == 'epoch']
    rows = [
        [str(epoch), *(number(row.get(name), 5) for name in names[1:])]
        for epoch, row in zip(epochs, view.history, strict=True)
    ]
    every = math.ceil(len(rows) / MOST_ROWS)
    shown = [
        place
        for place in range(len(rows))
        if place % every == 0 or epochs[place] == view.chosen or place == len(rows) - 1
    ]
    units = {f'val_mae_{axis}': f'val_mae_{axis}, {unit}' for axis, unit in view.axes}
    every_name = list(dict.fromkeys(name for row in view.history for name in row))
    all_rows = [
        [
            str(row.get(name, '–')) if name == 'epoch' else number(row.get(name), 5)
            for name in every_name
        ]
        for row in view.history
    ]
    return [
        page.heading('How it learned'),
        page.figure(
            training_plots.curves(epochs, panels, view.chosen),
            'By epoch; lower is '
            'better. Dotted lines: what is reached without any image; a policy that is '
            'not below them all is not worth its camera. loss: Huber loss on the driven '
            'axes, each divided by its scale, in curves and lines. loss_arm_act: the '
            'same in the accounting of the seed run, averaged over six numbers of which '
            'the undriven ones are always zero.',
        ),
        _wide(
            page.table(
                [units.get(name, name) for name in names],
                [rows[place] for place in shown],
                [shown.index(place) for place in shown if epochs[place] == view.chosen],
            )
        ),
        page.paragraph(
            (f'Every {_ordinal(every)} of {len(rows)} epochs. ' if every > 1 else '')
            + _marked(view)
        ),
        page.details(
            f'All {len(rows)} epochs, every number of history.json',
            _wide(page.table(every_name, all_rows)),
        ),
    ]


def _marked(view: TrainingView) -> str:
    losses = dict(
        zip(
            (row.get('epoch') for row in view.history),
            _column(view.history, 'val_loss'),
            strict=True,
        )
    )
    if view.chosen not in losses:
        return 'None is marked: the policy does not say which epoch it is of.'
    lower = sum(loss < losses[view.chosen] for loss in losses.values())
    return 'Marked: the epoch of the policy of this report, ' + (
        'one of a lower val_loss could not be kept.' if lower else 'that of the lowest val_loss.'
    )


def _ordinal(count: int) -> str:
    return {2: 'second', 3: 'third'}.get(count, f'{count}th')


def _wide(table: str, kind: str = 'wide') -> str:
    return f'<div class="{kind}">{table}</div>'


def _measures(view: TrainingView) -> list[str]:
    head = [
        'on validation takes',
        'loss',
        'loss_arm_act',
        *(name for _ in view.axes for name in ('MAE', 'RMSE', 'sign', 'R²')),
    ]
    groups = [('', 3), *((training_plots.axis_name(*axis), 4) for axis in view.axes)]
    best = min(view.blind, key=lambda name: view.metrics[name]['loss'])
    rows = []
    for name, entry in view.metrics.items():
        cells = [
            f'{name} (the best)' if name == best else name,
            number(entry.get('loss'), 4),
            number(entry.get('loss_arm_act'), 4),
        ]
        for axis, _ in view.axes:
            of_axis = entry.get(axis) or {}
            sign = of_axis.get('sign_agreement')
            cells += [
                number(of_axis.get('mae')),
                number(of_axis.get('rmse')),
                '–' if sign is None else f'{sign:.0%}',
                number(of_axis.get('r2'), 2),
            ]
        rows.append(cells)
    meanings = ''.join(
        f'<dt><b>{html.escape(name)}</b></dt><dd>{html.escape(text)}</dd>'
        for name, text in view.meaning.items()
    )
    parts = [
        page.heading('Beside predictors that see no image'),
        _wide(
            page.table(head, rows, ours=[0], groups=groups),
            'wide measures' + (' many' if len(view.axes) > 2 else ''),
        ),
    ]
    if view.change:
        parts.append(
            page.table(
                [
                    'how far the command moves, given',
                    *(f'{axis}, {unit}' for axis, unit in view.axes),
                ],
                [
                    [what, *(number(moved.get(axis)) for axis, _ in view.axes)]
                    for what, moved in view.change.items()
                ],
            )
        )
    parts += [
        page.paragraph(
            'The first row is the policy, then itself deprived of something, then '
            'predictors that see no image; (the best): of those. MAE: mean absolute '
            'error. RMSE: root of the mean squared error, large misses count more. '
            'sign: how often the direction is right where the robot moved. R²: share '
            'of the variance explained; 1 is perfect, 0 is as good as the mean, less '
            'is worse. Measured at every place of the window and every chunk step '
            'that lies inside of a take.'
        ),
        page.details('What each row is', f'<dl>{meanings}</dl>'),
    ]
    return parts


def _scatter(view: TrainingView) -> list[str]:
    return [
        page.heading('Predicted against driven'),
        page.figure(
            training_plots.scatter(view.axes, view.driven, view.predicted),
            f'{len(view.driven):,} velocities: every chunk step, seen from the newest '
            'frame of each window. On the dashed line the prediction is right; a '
            'level band means that it says the same whatever it sees. Darker: more of '
            'them (log).',
        ),
    ]


def _chunk(view: TrainingView) -> list[str]:
    if not all(view.chunk_errors.values()):
        return []
    if all(
        len(error) == 1 for of_kind in view.chunk_errors.values() for error in of_kind.values()
    ):
        return [
            page.heading('Error over the chunk'),
            page.paragraph('The chunk has one step: its error stands in the table above.'),
        ]
    return [
        page.heading('Error over the chunk'),
        page.figure(
            training_plots.over_the_chunk(view.axes, view.rate_hz, view.chunk_errors),
            'How the error grows the further ahead a chunk step lies. Repeating the '
            'last command is strong for the first steps and weak later; a policy '
            'that looks ahead stays flat.',
        ),
    ]


def _drives(view: TrainingView) -> list[str]:
    limits = [_limits(view, column) for column in range(len(view.axes))]
    gap = (
        ' A dotted red line: frames are missing there; the gap is left out.'
        if any(drive.gaps for drive in view.drives)
        else ''
    )
    key = (
        f'<p class="key"><i style="border-color:{INK}"></i>driven'
        f'<i style="border-color:{POLICY}"></i>what the policy would drive at each frame: the '
        f'first step of its chunk. All takes on one scale.{gap}</p>'
    )
    parts = [page.heading('Along whole takes'), key]
    for drive in view.drives:
        parts.append(
            f'<h3>{html.escape(drive.title)}</h3>'
            + page.paragraph(drive.about)
            + '<figure>'
            + training_plots.along_a_take(
                view.axes, drive.seconds, drive.driven, drive.predicted, drive.gaps, limits
            )
            + '</figure>'
        )
    return parts


def _limits(view: TrainingView, column: int) -> tuple[float, float]:
    values = np.concatenate(
        [part[:, column] for drive in view.drives for part in (drive.driven, drive.predicted)]
    )
    finite = np.append(values[np.isfinite(values)], 0.0)
    room = 0.06 * np.ptp(finite) + 1e-3
    return finite.min() - room, finite.max() + room


def _worst(view: TrainingView) -> list[str]:
    parts = [
        page.heading('The worst windows'),
        page.paragraph(
            'Where the policy errs most, with the frames that it saw. Arrows on '
            'the newest: mean velocity over the chunk, up is forward; white was '
            'driven, yellow is predicted, a dot stands still'
            + (
                ' (turning is not drawn).'
                if any(axis.startswith('angular') for axis, _ in view.axes)
                else '.'
            )
        ),
    ]
    if not view.worst:
        parts.append(page.paragraph('There is none whose error is a number.'))
    for window in view.worst:
        frames = ''.join(
            f'<div><img alt="{html.escape(caption)}" src="{page.image_data(image)}">'
            f'{html.escape(caption)}</div>'
            for image, caption in window.pictures
        )
        problem = f'<p class="no">{html.escape(window.problem)}</p>' if window.problem else ''
        parts.append(
            f'<div class="worst"><h3>{html.escape(window.title)}</h3>'
            f'{page.paragraph(window.about)}<p>driven: {html.escape(window.driven)}<br>'
            f'predicted: {html.escape(window.predicted)}</p>{problem}'
            f'<div class="frames">{frames}</div></div>'
        )
    return parts


def _coverage(view: TrainingView) -> list[str]:
    data = view.coverage
    head = ['instruction', 'takes', 'minutes', 'idle', 'takes', 'minutes', 'idle']
    groups = [('', 1), ('training', 3), ('validation', 3)]

    def table(rows: Sequence[Sequence[str]]) -> str:
        return _wide(page.table(head, rows, ours=[0], groups=groups))

    parts = [page.heading('The takes'), table(data.rows[: MOST_ROWS + 1])]
    if len(data.rows) > MOST_ROWS + 1:
        parts.append(page.details(f'All {len(data.rows) - 1} instructions', table(data.rows)))
    parts.append(
        page.figure(
            training_plots.commands(view.axes, data.train, data.val),
            'How often each speed was driven. '
            + (
                'A speed that no training take has cannot be learned.'
                if len(data.train)
                else 'Of the takes that the policy was trained on none is here.'
            ),
        )
    )
    if data.alike or data.leaks:
        parts += [
            page.paragraph(
                f'{len(data.alike)} groups of takes have nearly the same commands'
                + (
                    f'; on both sides of the split: {len(data.leaks)} of them, so that validation '
                    'says less than it seems to. --group_duplicates keeps each on one side.'
                    if data.leaks
                    else '; none lies on both sides of the split.'
                )
            ),
            *(_names(f'Alike, on both sides: {len(group)} takes', group) for group in data.leaks),
            _names('All groups', [', '.join(group) for group in data.alike]),
        ]
    if data.broken:
        parts.append(
            _wide(
                _texts(['validation frames that cannot be read'], dict.fromkeys(data.broken, ''))
            )
        )
    if data.left_out:
        parts.append(_wide(_texts(['left out', 'why'], data.left_out)))
    else:
        parts.append(page.paragraph('No take was left out.'))
    return parts


def _names(summary: str, names: Sequence[str]) -> str:
    return page.details(summary, _items(names)) if names else ''


def _items(texts: Sequence[str]) -> str:
    items = ''.join(f'<li>{html.escape(text)}</li>' for text in texts)
    return f'<ul>{items}</ul>' if items else ''


def _texts(head: Sequence[str], rows: Mapping[str, str]) -> str:
    body = ''.join(
        f'<tr><td>{html.escape(name)}</td><td class="text">{html.escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    top = ''.join(f'<th class="text">{html.escape(cell)}</th>' for cell in head)
    return f'<table>{f"<tr>{top}</tr>" if top else ""}{body}</table>'


def _facts(view: TrainingView) -> list[str]:
    return [
        page.heading('How it was made'),
        *(
            f'<h3>{html.escape(group)}</h3>' + _wide(_texts([], facts))
            for group, facts in view.facts.items()
            if facts
        ),
    ]
