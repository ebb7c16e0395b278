"""The result of `mobile_vla simulate`: lines for the terminal, and a page."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mobile_vla_ros import __version__
from mobile_vla_ros.report.pages.trials_page import (
    DriveView,
    Film,
    SuiteView,
    Thing,
    span,
    times,
    trials_page,
)
from mobile_vla_ros.rollout.trials import PATH_PERIOD_NS, Drive, Trial
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import SUCCESS, Arena
from mobile_vla_ros.types import NANOSECONDS

FILM_PIXELS = 160
FILM_STEP = 2  # rows of the path: 5 images a second
FILM_PERIOD_S = FILM_STEP * PATH_PERIOD_NS / NANOSECONDS
JPEG_QUALITY = 60
# An image is rendered anew when the base has moved or turned by more than this.
STILL_M, STILL_RAD = 0.005, 0.005
# Maximum number of films of a suite, and bytes of all films of a page.
MAX_FILMS = 24
FILM_BYTES = 8_000_000


def text(summary: Mapping, speeds: tuple[float, float] | None) -> str:
    """
    Return the lines of one suite.

    :param speeds: the arena's time against real time, without and with the driver, or None.
    """
    kinds = ', '.join(
        f'{kind} {counts[SUCCESS]}/{counts["drives"]}' for kind, counts in summary['kinds'].items()
    )
    ends = ', '.join(f'{end} {count}' for end, count in summary['ends'].items())
    lines = [
        f'{summary["suite"]}: {summary["success_rate"]:.0%} success '
        f'({span(summary["success_interval"])}), {summary["collision_rate"]:.0%} collisions '
        f'({span(summary["collision_interval"])}) in {summary["trials"]} trials',
        f'  outcomes: {ends}',
        f'  successes by task: {kinds}',
    ]
    time, length = summary['time_s'], summary['length_m']
    if time['mean'] is not None:
        lines.append(
            f'  a successful drive: {time["mean"]:.1f} s ({times(time)}), '
            f'{length["mean"]:.2f} m ({times(length)})'
        )
    if speeds:
        lines.append(
            f'  speed: the arena {speeds[0]:.0f} x real time, with its driver {speeds[1]:.0f} x'
        )
    return '\n'.join(lines)


def write(
    path: Path,
    arena: Arena,
    summaries: Mapping[str, Mapping],
    driven: Mapping[str, Sequence[Trial]],
    *,
    who: str,
) -> Path:
    """Write the page, replacing an existing one atomically."""
    from mobile_vla_ros.report.pages import page

    small = Arena(FILM_PIXELS, FILM_PIXELS, limits=arena.limits, judge=arena.judge)
    arena.close()  # one GL context at a time
    try:
        views = [
            _suite(small, name, summaries[name], driven[name], FILM_BYTES // len(driven))
            for name in driven
        ]
    finally:
        small.close()
    return page.write(
        path,
        trials_page(
            'Driven in the arena',
            f'mobile_vla simulate: {who}; suites of version {suites.VERSION}, '
            f'mobile_vla_ros {__version__}',
            views,
        ),
    )


def _suite(
    arena: Arena, name: str, summary: Mapping, trials: Sequence[Trial], budget: int
) -> SuiteView:
    """Return the view of a suite; its films stop after ``budget`` bytes."""
    views, films, spent = [], 0, 0
    for trial in trials:
        for place, drive in enumerate(trial.drives):
            film = None
            if drive.outcome != SUCCESS and films < MAX_FILMS and spent < budget:
                film = _film(arena, drive)
            if film is not None:
                films += 1
                spent += sum(map(len, film.images))
            title = f'{drive.kind}, trial {trial.number}'
            if len(trial.drives) > 1:
                title += f', drive {place + 1}'
            views.append(
                DriveView(
                    title,
                    drive.instruction,
                    drive.outcome,
                    drive.elapsed_s,
                    _things(drive),
                    drive.path,
                    drive.expert_path,
                    film,
                )
            )
    return SuiteView(name, suites.SUITES[name].about, summary, views)


def _things(drive: Drive) -> list[Thing]:
    scene = suites.scene(drive.suite, drive.scene)
    return [
        Thing(thing.shape, thing.rgb, thing.x, thing.y, thing.radius, clutter=True)
        for thing in scene.clutter
    ] + [
        Thing(thing.shape, thing.rgb, thing.x, thing.y, thing.radius, i == scene.task.target)
        for i, thing in enumerate(scene.objects)
    ]


def _film(arena: Arena, drive: Drive) -> Film | None:
    """Render the camera's images again; None if the path has no yaw."""
    from PIL import Image

    if not drive.path or len(drive.path[0]) < 3:
        return None
    rows = [*range(0, len(drive.path) - 1, FILM_STEP), len(drive.path) - 1]
    arena.reset(suites.scene(drive.suite, drive.scene))
    images, shown, times_s = [], [], []
    drawn: tuple[float, float, float] | None = None
    for row in rows:
        x, y, yaw = drive.path[row]
        pose = (x, y, yaw)
        if (
            drawn is None
            or math.dist(pose[:2], drawn[:2]) > STILL_M
            or abs(math.remainder(pose[2] - drawn[2], math.tau)) > STILL_RAD
        ):
            arena.pose = pose
            arena.time_ns = row * PATH_PERIOD_NS
            buffer = io.BytesIO()
            Image.fromarray(arena.render()).save(buffer, 'JPEG', quality=JPEG_QUALITY)
            images.append(buffer.getvalue())
            drawn = pose
        shown.append(len(images) - 1)
        times_s.append(min(row * FILM_PERIOD_S / FILM_STEP, drive.elapsed_s))
    return Film([drive.path[row] for row in rows], times_s, images, shown)
