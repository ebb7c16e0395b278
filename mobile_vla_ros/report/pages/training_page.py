"""The page of a training or an evaluation: how good the policy is, and where it fails."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mobile_vla_ros.report.figures import training_plots
from mobile_vla_ros.report.pages import page
from mobile_vla_ros.report.pages.training_view import PredictedEpisode, TrainingView

# Epochs and instructions shown before the rest is folded.
MAX_ROWS = 20


def training_page(view: TrainingView) -> str:
    """Return the page, which is self-contained and has no script."""
    return page.render(
        'training.html',
        title=view.title,
        subtitle=view.subtitle,
        view=view,
        curves=_curves(view) if view.history else None,
        best=min(view.blind, key=lambda name: view.metrics[name]['loss']),
        scatter=training_plots.scatter(view.axes, view.driven, view.predicted),
        chunk=_chunk(view),
        drives=_drives(view),
        gaps=any(drive.gaps for drive in view.drives),
        turns=any(axis.startswith('angular') for axis, _ in view.axes),
        commands=training_plots.commands(view.axes, view.coverage.train, view.coverage.val),
        max_rows=MAX_ROWS,
        axis_name=training_plots.axis_name,
        number=number,
        ordinal=_ordinal,
    )


def number(value, digits: int = 3) -> str:
    """Return a number as text; a dash for None, NaN and inf."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return '–' if value is None else str(value)
    if not math.isfinite(value):
        return '–'
    text = f'{value:.{digits}f}'
    return text.lstrip('-') if float(text) == 0 else text.replace('-', '−')


def _column(history: Sequence[Mapping], name: str) -> list[float]:
    values = [row.get(name) for row in history]
    return [float('nan') if value is None else float(value) for value in values]


def _curves(view: TrainingView) -> dict:
    """
    Return the losses by epoch: the figure, and the rows of two tables.

    `lower`: number of epochs with a lower validation loss than the chosen one; None if unknown.
    """
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
    every = math.ceil(len(rows) / MAX_ROWS)
    shown = [
        place
        for place in range(len(rows))
        if place % every == 0 or epochs[place] == view.chosen or place == len(rows) - 1
    ]
    units = {f'val_mae_{axis}': f'val_mae_{axis}, {unit}' for axis, unit in view.axes}
    every_name = list(dict.fromkeys(name for row in view.history for name in row))
    every_row = [
        [
            str(row.get(name, '–')) if name == 'epoch' else number(row.get(name), 5)
            for name in every_name
        ]
        for row in view.history
    ]
    losses = dict(
        zip(
            (row.get('epoch') for row in view.history),
            _column(view.history, 'val_loss'),
            strict=True,
        )
    )
    return {
        'svg': training_plots.curves(epochs, panels, view.chosen),
        'head': [units.get(name, name) for name in names],
        'rows': [rows[place] for place in shown],
        'marked': [shown.index(place) for place in shown if epochs[place] == view.chosen],
        'every': every,
        'every_name': every_name,
        'every_row': every_row,
        'lower': sum(loss < losses[view.chosen] for loss in losses.values())
        if view.chosen in losses
        else None,
    }


def _ordinal(count: int) -> str:
    return {2: 'second', 3: 'third'}.get(count, f'{count}th')


def _chunk(view: TrainingView) -> str | None:
    """Draw the error over the chunk; '' for a chunk of one step, None if unknown."""
    if not all(view.chunk_errors.values()):
        return None
    errors = [error for of_kind in view.chunk_errors.values() for error in of_kind.values()]
    if all(len(error) == 1 for error in errors):
        return ''
    return training_plots.over_the_chunk(view.axes, view.rate_hz, view.chunk_errors)


def _drives(view: TrainingView) -> list[tuple[PredictedEpisode, str]]:
    """Draw every drive on one scale."""
    limits = [_limits(view, column) for column in range(len(view.axes))]
    return [
        (
            drive,
            training_plots.along_an_episode(
                view.axes, drive.seconds, drive.driven, drive.predicted, drive.gaps, limits
            ),
        )
        for drive in view.drives
    ]


def _limits(view: TrainingView, column: int) -> tuple[float, float]:
    values = np.concatenate(
        [part[:, column] for drive in view.drives for part in (drive.driven, drive.predicted)]
    )
    finite = np.append(values[np.isfinite(values)], 0.0)
    room = 0.06 * np.ptp(finite) + 1e-3
    return finite.min() - room, finite.max() + room
