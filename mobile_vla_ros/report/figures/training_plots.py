"""Figures of the training report, drawn from plain numbers; the colours are those of `plots`."""

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
# Beyond so many points a line or a cloud is drawn as pixels: the page stays small.
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
    Draw losses by epoch on log axes, one panel a loss, with the blind baselines as lines across.

    :param panels: what the loss is called; curves by name (`validation` is the policy's), nan
        where a number is missing; and the baselines' values by name.
    :param chosen: the epoch whose policy is kept; None: it is not marked.
    """
    drawing = Figure(figsize=(11.4, 3.6 * len(panels)))
    marker = '.' if len(epochs) <= MANY_EPOCHS else None
    for panel, (name, lines, blind) in zip(
        drawing.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        for label, values in lines.items():
            ours = label == 'validation'
            panel.plot(
                epochs,
                values,
                marker=marker,
                label=label,
                zorder=3,
                color=POLICY if ours else GREY,
                linewidth=2.2 if ours else 1.4,
            )
            if ours and chosen in list(epochs):
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
    """Write names beside the lines they belong to, moved apart where they would overlap."""
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
    Move sorted places apart until neighbours are `gap` apart, each as little as can be.

    Places that push each other form a group around the mean of what they wanted (least squares).
    """
    # Sum and count of wanted places less their rank's room.
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
    Draw what was predicted over what was driven, a panel an axis; many points as a density.

    :param axes: name and unit of each.
    :param driven: (N, axes) in their units; so is predicted.
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
    Draw errors by how far ahead a chunk step lies: a column an axis, a row a kind of error.

    :param errors: kind of error (`MAE`, `RMSE`) to predictor to (chunk, axes) in the axes' units;
        the first predictor is the policy.
    """
    drawing = Figure(figsize=(max(7.0, 5.2 * len(axes)), 2.7 * len(errors)))
    panels = drawing.subplots(len(errors), len(axes), squeeze=False, sharex=True, sharey='col')
    for row, (kind, predictors) in zip(panels, errors.items(), strict=True):
        for column, (panel, axis) in enumerate(zip(row, axes, strict=True)):
            for number, (name, error) in enumerate(predictors.items()):
                ours = number == 0
                panel.plot(
                    np.arange(len(error)) / rate_hz,
                    error[:, column],
                    label=name,
                    marker='o' if ours else None,
                    markersize=4,
                    color=POLICY if ours else BLIND,
                    linewidth=2.4 if ours else 1.4,
                    linestyle='-' if ours else DASHES[(number - 1) % len(DASHES)],
                    zorder=4 if ours else 3,
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
    Draw one episode's velocities over time, a panel an axis: driven dark, predicted in our colour.

    :param seconds: (N,) of driving; nan, like the velocities there, where a line is to break.
    :param driven: (N, axes) in their units; so is predicted.
    :param gaps: seconds at which frames are missing.
    :param limits: lowest and highest velocity of each axis, so that episodes can be compared.
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
    Draw how often each speed was driven: training episodes filled, validation as an outline.

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
