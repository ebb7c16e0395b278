"""Figures of the training report, from plain numbers, in the colours of `plots`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mobile_vla_ros.report.figures.plots import BLIND, GREY, INK, POLICY, svg

WORDS = {
    'linear_x': 'forward',
    'linear_y': 'to the left',
    'linear_z': 'up',
    'angular_x': 'roll',
    'angular_y': 'pitch',
    'angular_z': 'turning left',
}
# More points are rasterised, to keep the page small.
MAX_POINTS = 1500
MANY_EPOCHS = 40
DENSITY = LinearSegmentedColormap.from_list('density', ['#f8e3b8', POLICY, '#4a2f00'])
DASHES = ((0, (1, 2)), (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), '-')


def axis_name(axis: str, unit: str) -> str:
    """Return an axis in words, with its name and its unit."""
    return f'{WORDS.get(axis, axis)} ({axis}), {unit}'


def curves(
    epochs: Sequence[int],
    panels: Sequence[tuple[str, Mapping[str, Sequence[float]], Mapping[str, float]]],
    chosen: int | None,
) -> str:
    """
    Draw losses by epoch on log axes, one panel each, with the baselines as horizontal lines.

    :param panels: (name of the loss, curves by name, values of the baselines by name); the curve
        `validation` is the policy's; NaN: missing.
    :param chosen: the epoch of the policy, marked; None: unknown.
    """
    drawing = Figure(figsize=(11.4, 3.6 * len(panels)))
    marker = '.' if len(epochs) <= MANY_EPOCHS else None
    for panel, (name, lines, blind) in zip(
        drawing.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        for label, values in lines.items():
            highlighted = label == 'validation'
            panel.plot(
                epochs,
                values,
                marker=marker,
                label=label,
                zorder=3,
                color=POLICY if highlighted else GREY,
                linewidth=2.2 if highlighted else 1.4,
            )
            if highlighted and chosen in list(epochs):
                value = values[list(epochs).index(chosen)]
                panel.plot(
                    [chosen],
                    [value],
                    marker='o',
                    markersize=11,
                    fillstyle='none',
                    color=INK,
                    linestyle='none',
                    zorder=4,
                    label=f'the policy of this report: epoch {chosen}, {value:.4f}',
                )
        for value in blind.values():
            panel.axhline(value, color=BLIND, linestyle=':', linewidth=1.3)
        panel.set_yscale('log', nonpositive='mask')
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.margins(x=0.02, y=0.08)
        panel.set_xlabel('epoch')
        panel.set_ylabel(name)
        panel.grid(axis='y', color='#eef1f4')
        panel.set_axisbelow(True)
        panel.legend(
            frameon=False, ncols=3, loc='lower left', bbox_to_anchor=(0, 1), borderaxespad=0.1
        )
        _label_right(panel, blind)
    drawing.subplots_adjust(hspace=0.42, right=0.72, left=0.07)
    return svg(drawing)


def _label_right(axes: Axes, values: Mapping[str, float], gap: float = 0.062) -> None:
    """Write names beside their lines, moved apart where they would overlap."""
    low, high = np.log(axes.get_ylim())
    names = sorted(values, key=lambda name: values[name])
    wanted = [(np.log(max(values[name], 1e-12)) - low) / (high - low) for name in names]
    for name, at, place in zip(names, wanted, spread(wanted, gap), strict=True):
        axes.annotate(
            f'{name}: {values[name]:.4f}',
            (1.0, at),
            xytext=(1.03, place),
            xycoords='axes fraction',
            textcoords='axes fraction',
            va='center',
            fontsize=9.5,
            color=BLIND,
            annotation_clip=False,
            arrowprops={
                'arrowstyle': '-',
                'color': BLIND,
                'linewidth': 0.8,
                'shrinkA': 0,
                'shrinkB': 0,
                'relpos': (0, 0.5),
            },
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """
    Move sorted positions until neighbours are at least `gap` apart, each as little as possible.

    Neighbours in conflict form a group around their mean position (least squares).
    """
    # Sum and count of wanted positions minus rank * gap.
    groups: list[tuple[float, int]] = []
    for rank, place in enumerate(wanted):
        groups.append((place - rank * gap, 1))
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            before, members = groups[-1]
            groups[-1] = (before + total, members + count)
    flat = [total / count for total, count in groups for _ in range(count)]
    return [place + rank * gap for rank, place in enumerate(flat)]


def scatter(axes: Sequence[tuple[str, str]], driven: np.ndarray, predicted: np.ndarray) -> str:
    """
    Draw predicted over driven velocity, a panel for each axis; many points as a density.

    :param axes: name and unit of each.
    :param driven, predicted: (N, axes) in their units.
    """
    drawing = Figure(figsize=(4.6 * len(axes), 4.4))
    for column, (panel, axis) in enumerate(
        zip(drawing.subplots(1, len(axes), squeeze=False)[0], axes, strict=True)
    ):
        x, y = driven[:, column], predicted[:, column]
        reach = max(1.08 * max(np.abs(x).max(initial=0), np.abs(y).max(initial=0)), 1e-3)
        panel.axhline(0, color='#e6eaee', linewidth=1, zorder=0)
        panel.axvline(0, color='#e6eaee', linewidth=1, zorder=0)
        if len(x) > MAX_POINTS:
            counts, edges, _ = np.histogram2d(x, y, bins=81, range=[[-reach, reach]] * 2)
            panel.pcolormesh(
                edges,
                edges,
                np.where(counts > 0, counts, np.nan).T,
                cmap=DENSITY,
                norm=LogNorm(1, max(2, counts.max())),
                rasterized=True,
            )
        else:
            panel.scatter(x, y, s=9, color=POLICY, alpha=0.5, linewidths=0, rasterized=True)
        panel.plot([-reach, reach], [-reach, reach], color=INK, linewidth=1, linestyle='--')
        panel.set_xlim(-reach, reach)
        panel.set_ylim(-reach, reach)
        panel.set_aspect('equal')
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.set_title(axis_name(*axis), fontsize=11)
        panel.set_xlabel(f'driven, {axis[1]}')
        panel.set_ylabel(f'predicted, {axis[1]}')
    drawing.subplots_adjust(wspace=0.38)
    return svg(drawing)


def over_the_chunk(
    axes: Sequence[tuple[str, str]], rate_hz: float, errors: Mapping[str, Mapping[str, np.ndarray]]
) -> str:
    """
    Draw errors by chunk step: a column for each axis, a row for each kind of error.

    :param errors: kind of error (`MAE`, `RMSE`) → predictor → (chunk, axes) in the axes' units;
        the policy comes first.
    """
    drawing = Figure(figsize=(max(7.0, 5.2 * len(axes)), 2.7 * len(errors)))
    panels = drawing.subplots(len(errors), len(axes), squeeze=False, sharex=True, sharey='col')
    for row, (kind, predictors) in zip(panels, errors.items(), strict=True):
        for column, (panel, axis) in enumerate(zip(row, axes, strict=True)):
            for number, (name, error) in enumerate(predictors.items()):
                is_policy = number == 0
                panel.plot(
                    np.arange(len(error)) / rate_hz,
                    error[:, column],
                    label=name,
                    marker='o' if is_policy else None,
                    markersize=4,
                    color=POLICY if is_policy else BLIND,
                    linewidth=2.4 if is_policy else 1.4,
                    linestyle='-' if is_policy else DASHES[(number - 1) % len(DASHES)],
                    zorder=4 if is_policy else 3,
                )
            panel.set_ylabel(f'{kind}, {axis[1]}')
            panel.grid(axis='y', color='#eef1f4')
    for column, axis in enumerate(axes):
        panels[0][column].set_title(axis_name(*axis), fontsize=11)
        panels[0][column].set_ylim(bottom=0)
        panels[-1][column].set_xlabel('seconds ahead')
    drawing.legend(
        *panels[0][0].get_legend_handles_labels(),
        frameon=False,
        ncols=3,
        loc='lower center',
        bbox_to_anchor=(0.5, 0.9),
        fontsize=10,
    )
    drawing.subplots_adjust(wspace=0.22, hspace=0.14, top=0.84)
    return svg(drawing)


def along_an_episode(
    axes: Sequence[tuple[str, str]],
    seconds: np.ndarray,
    driven: np.ndarray,
    predicted: np.ndarray,
    gaps: Sequence[float] = (),
    limits: Sequence[tuple[float, float]] = (),
) -> str:
    """
    Draw one episode's velocities over time, a panel for each axis: driven dark, predicted orange.

    :param seconds: (N,) times; NaN, like the velocities there, breaks the line.
    :param driven, predicted: (N, axes) in their units.
    :param gaps: seconds at which frames are missing.
    :param limits: lowest and highest velocity of each axis, shared by all episodes.
    """
    drawing = Figure(figsize=(12, 2.0))
    pixels = len(seconds) > MAX_POINTS
    for column, (panel, axis) in enumerate(
        zip(drawing.subplots(1, len(axes), squeeze=False)[0], axes, strict=True)
    ):
        panel.axhline(0, color='#c3cad1', linewidth=0.8)
        for second in gaps:
            panel.axvline(second, color='#b3261e', linewidth=0.8, linestyle=':')
        panel.plot(
            seconds,
            driven[:, column],
            color=INK,
            linewidth=1.5,
            rasterized=pixels,
            drawstyle='steps-post',
        )
        panel.plot(
            seconds,
            predicted[:, column],
            color=POLICY,
            linewidth=2,
            rasterized=pixels,
            marker='.' if np.isfinite(seconds).sum() < MANY_EPOCHS else None,
        )
        if limits:
            panel.set_ylim(*limits[column])
        panel.set_title(axis_name(*axis), fontsize=10, loc='left')
        panel.set_xlabel('seconds')
        panel.yaxis.set_major_locator(MaxNLocator(5))
    drawing.subplots_adjust(wspace=0.06 * (1 + len(axes)))
    return svg(drawing)


def commands(axes: Sequence[tuple[str, str]], train: np.ndarray, val: np.ndarray) -> str:
    """
    Draw histograms of the driven velocities: training filled, validation as an outline.

    :param train: (N, axes) in their units; val: (M, axes).
    """
    drawing = Figure(figsize=(4.6 * len(axes), 2.7))
    for column, (panel, axis) in enumerate(
        zip(drawing.subplots(1, len(axes), squeeze=False)[0], axes, strict=True)
    ):
        sides = train[:, column], val[:, column]
        reach = max(*(np.abs(side).max(initial=0) for side in sides), 1e-3)
        edges = np.linspace(-1.05 * reach, 1.05 * reach, 32)
        for side, style in zip(
            sides,
            (
                {'histtype': 'stepfilled', 'color': GREY, 'alpha': 0.55, 'label': 'training'},
                {'histtype': 'step', 'color': INK, 'linewidth': 1.5, 'label': 'validation'},
            ),
            strict=True,
        ):
            panel.hist(side, edges, weights=np.full(len(side), 100 / max(1, len(side))), **style)
        panel.set_xlabel(axis_name(*axis))
        panel.set_ylabel('% of the time')
        panel.legend(frameon=False, fontsize=9.5)
    drawing.subplots_adjust(wspace=0.3)
    return svg(drawing)
