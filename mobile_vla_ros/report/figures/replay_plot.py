"""Draw predicted and driven commands of an episode over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.report.figures.plots import GREY, POLICY


def write_png(
    path: Path,
    title: str,
    seconds: Sequence[float],
    axes: Mapping[str, tuple[str, Sequence[float], Sequence[float]]],
) -> None:
    """
    Write an image with one panel for each axis.

    :param seconds: (N,) instants, from the episode's start.
    :param axes: name → unit, predicted (N,), NaN without a prediction, and driven (N,).
    :raises UserError: when it cannot be written.
    """
    drawing = Figure(figsize=(10, 0.9 + 2.4 * len(axes)))
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(len(axes), 1, squeeze=False, sharex=True)[:, 0]
    for panel, (name, (unit, predicted, driven)) in zip(panels, axes.items(), strict=True):
        panel.axhline(0, color=GREY, linewidth=0.6)
        panel.step(seconds, driven, where='post', color=GREY, label='driven')
        panel.plot(seconds, predicted, color=POLICY, linewidth=1.6, label='predicted')
        panel.set_ylabel(f'{name} [{unit}]')
    panels[0].set_title(title, fontsize=10, parse_math=False)
    panels[0].legend(frameon=False, loc='upper right')
    panels[-1].set_xlabel('seconds')
    try:
        drawing.savefig(path, format='png', dpi=110, bbox_inches='tight')
    except OSError as error:
        raise UserError(f'cannot write the plot {path}', got=error.strerror) from error
