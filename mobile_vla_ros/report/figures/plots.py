"""Figures as SVG text, drawn by matplotlib from plain numbers."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle

INK, GREY, POLICY, BLIND = '#1b1f24', '#8a949e', '#d98e04', '#6b7fd7'
COLUMNS = 5  # of trials seen from above
# Reproducible bytes.
matplotlib.rcParams.update(
    {
        'svg.hashsalt': 'mobile_vla',
        'font.size': 11,
        'axes.spines.top': False,
        'axes.spines.right': False,
    }
)


def svg(drawing: Figure) -> Markup:
    """Return a figure as a self-contained SVG element."""
    buffer = io.StringIO()
    # matplotlib's metadata contains an external address.
    nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    drawing.savefig(buffer, format='svg', bbox_inches='tight', metadata=nothing)
    text = buffer.getvalue()
    return Markup(text[text.index('<svg') :])


def loss_curve(
    train: Sequence[float], val: Sequence[float], baselines: Mapping[str, float]
) -> str:
    """Draw losses by epoch, with the baselines as horizontal lines."""
    drawing = Figure(figsize=(9, 3.8))
    axes = drawing.subplots()
    epochs = range(len(train))
    axes.plot(epochs, train, color=GREY, marker='.', label='training')
    axes.plot(epochs, val, color=POLICY, marker='.', linewidth=2, label='validation')
    for names, value in _merged(baselines):
        axes.axhline(value, color=BLIND, linestyle=':', linewidth=1.2)
        axes.annotate(
            '\n'.join(names),
            (1.0, value),
            xycoords=('axes fraction', 'data'),
            xytext=(4, 0),
            textcoords='offset points',
            va='center',
            fontsize=9,
            color=BLIND,
        )
    axes.set_yscale('log')
    axes.set_xlabel('epoch')
    axes.set_ylabel('loss')
    axes.legend(frameon=False)
    return svg(drawing)


def _merged(values: Mapping[str, float], within: float = 0.1) -> list[tuple[list[str], float]]:
    """Group names whose values are so close that their labels would overlap."""
    groups: list[tuple[list[str], float]] = []
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        if groups and value <= groups[-1][1] * (1 + within):
            groups[-1][0].append(name)
        else:
            groups.append(([name], value))
    return groups


def success_bars(rows: Sequence[tuple[str, int, int, Sequence[float]]]) -> str:
    """Draw shares: (name, successes, trials, the share's 95 % interval)."""
    drawing = Figure(figsize=(9, 0.9 + 0.55 * len(rows)))
    axes = drawing.subplots()
    for place, (name, successes, trials, (low, high)) in enumerate(rows):
        share = successes / trials
        axes.barh(place, share, color=POLICY if place == 0 else GREY, height=0.55)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.5)
        axes.annotate(
            f'{successes} of {trials}',
            (max(high, share), place),
            xytext=(6, 0),
            textcoords='offset points',
            va='center',
        )
        axes.annotate(
            name, (0, place), xytext=(-8, 0), textcoords='offset points', va='center', ha='right'
        )
    axes.set_xlim(0, 1.12)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ['0 %', '25 %', '50 %', '75 %', '100 %'])
    return svg(drawing)


@dataclass(frozen=True)
class Thing:
    """An object seen from above: shape, colour (rgb 0 to 1), centre and radius in metres."""

    shape: str
    rgb: tuple[float, float, float]
    x: float
    y: float
    radius: float
    target: bool


@dataclass(frozen=True)
class Plan:
    """One trial from above: objects, and paths as (name, [(x, y), …], outcome)."""

    title: str
    things: Sequence[Thing]
    paths: Sequence[tuple[str, Sequence[tuple[float, float]], str]]


def top_down(plans: Sequence[Plan]) -> str:
    """Draw trials from above, forward up; the first path of each is the policy's."""
    rows = math.ceil(len(plans) / COLUMNS)
    drawing = Figure(figsize=(2.0 * COLUMNS, 3.0 * rows))
    grid = drawing.subplots(
        rows, COLUMNS, squeeze=False, gridspec_kw={'wspace': 0.04, 'hspace': 0.22}
    )
    for axes in grid.flat:
        axes.axis('off')
    for axes, plan in zip(grid.flat, plans, strict=False):
        for thing in plan.things:
            _draw_thing(axes, thing)
        for number, (_, path, outcome) in enumerate(plan.paths):
            ys, xs = [-p[1] for p in path], [p[0] for p in path]
            axes.plot(
                ys,
                xs,
                color=POLICY if number == 0 else BLIND,
                zorder=3 - number,
                linewidth=2.2 if number == 0 else 1.2,
                linestyle='-' if number == 0 else ':',
            )
            if path:
                axes.plot(
                    ys[-1],
                    xs[-1],
                    marker='o' if outcome == 'success' else 'X',
                    color=POLICY if number == 0 else BLIND,
                    markersize=6,
                    zorder=4,
                )
        axes.set_xlim(-1.6, 1.6)
        axes.set_ylim(-0.3, 4.0)
        axes.set_aspect('equal')
        good = plan.paths and plan.paths[0][2] == 'success'
        axes.set_title(
            textwrap.fill(plan.title, 24),
            fontsize=8,
            color=INK if good else '#b3261e',
            parse_math=False,
        )
    return svg(drawing)


def _draw_thing(axes: Axes, thing: Thing) -> None:
    x, y, r = -thing.y, thing.x, thing.radius
    style: dict[str, Any] = {'facecolor': thing.rgb, 'edgecolor': INK, 'linewidth': 0.6}
    if thing.shape == 'box':
        axes.add_patch(Rectangle((x - r, y - r), 2 * r, 2 * r, **style))
    elif thing.shape == 'cone':
        axes.add_patch(Polygon([(x - r, y - r), (x + r, y - r), (x, y + r)], **style))
    else:
        axes.add_patch(Circle((x, y), r, **style))
        if thing.shape == 'cylinder':
            axes.add_patch(Circle((x, y), r * 0.55, fill=False, edgecolor=INK, linewidth=0.6))
    if thing.target:
        axes.add_patch(
            Circle((x, y), r + 0.12, fill=False, edgecolor=INK, linewidth=1.4, linestyle='--')
        )
