"""The page of `mobile_vla simulate`: how trials ended, from above, and failures frame by frame."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobile_vla_ros.report.pages import page

# What an outcome means; `trials.css` has its colour.
OUTCOMES = {
    'success': 'did what it was told',
    'wrong': 'went to another object, by another way, or did not stop',
    'collision': 'touched an object or a wall',
    'timeout': 'was not done in time',
}
# What of the floor a map shows, metres: ahead of the start and to both sides; more where needed.
AHEAD_M, BEHIND_M, ASIDE_M = 3.6, 0.6, 1.6
MARGIN_M = 0.4


@dataclass(frozen=True)
class Thing:
    """
    An object seen from above.

    :param rgb: its colour, each part 0 to 1.
    :param x: metres ahead.
    :param y: metres to the left.
    :param radius: half of its width, metres.
    :param clutter: whether no instruction means it; a map makes no room for it.
    """

    shape: str
    rgb: tuple[float, float, float]
    x: float
    y: float
    radius: float
    target: bool = False
    clutter: bool = False


@dataclass(frozen=True)
class Film:
    """
    What the camera saw.

    :param poses: [x (m), y (m), yaw (rad)].
    :param times: seconds since the start of each pose.
    :param pictures: JPEG files; one that looks like the picture before it is left out.
    :param shown: for every pose the number of its picture.
    """

    poses: Sequence[Sequence[float]]
    times: Sequence[float]
    pictures: Sequence[bytes]
    shown: Sequence[int]

    @property
    def data(self) -> dict:
        """What `trials.js` reads."""
        return {
            'poses': [[round(value, 3) for value in pose] for pose in self.poses],
            'times': [round(value, 2) for value in self.times],
            'shown': list(self.shown),
            'pictures': [base64.b64encode(picture).decode() for picture in self.pictures],
        }


@dataclass(frozen=True)
class DriveView:
    """One drive: what is said of it, and its paths of rows [x, y, …] in metres."""

    name: str
    instruction: str
    outcome: str
    elapsed_s: float
    things: Sequence[Thing]
    path: Sequence[Sequence[float]]
    expert_path: Sequence[Sequence[float]] = ()
    film: Film | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended in anything but success."""
        return self.outcome != 'success'

    @property
    def box(self) -> list[int]:
        """Left, top, width and height of the map, centimetres, forward up."""
        rows = [
            *self.path,
            *self.expert_path,
            *((thing.x, thing.y) for thing in self.things if not thing.clutter),
        ]
        ahead = max([AHEAD_M, *(row[0] + MARGIN_M for row in rows)])
        behind = max([BEHIND_M, *(MARGIN_M - row[0] for row in rows)])
        aside = max([ASIDE_M, *(abs(row[1]) + MARGIN_M for row in rows)])
        return [round(100 * length) for length in (-aside, -ahead, 2 * aside, ahead + behind)]


@dataclass(frozen=True)
class SuiteView:
    """
    One suite.

    :param summary: as `mobile_vla simulate --json` prints it.
    """

    name: str
    about: str
    summary: Mapping
    drives: Sequence[DriveView]

    @property
    def row(self) -> list[str]:
        """Its row in the table of all suites."""
        return [
            self.name,
            f'{self.summary["success_rate"]:.0%}',
            span(self.summary['success_interval']),
            f'{self.summary["collision_rate"]:.0%}',
            str(self.summary['trials']),
            times(self.summary['time_s']),
            times(self.summary['length_m']),
        ]

    @property
    def cards(self) -> list[tuple[str, str, str]]:
        """Its key figures."""
        summary = self.summary
        time, way = summary['time_s'], summary['length_m']
        cards = [
            (
                f'{summary["success_rate"]:.0%}',
                f'of {summary["trials"]} trials succeeded '
                f'(95 % interval: {span(summary["success_interval"])})',
                '',
            ),
            (
                f'{summary["collision_rate"]:.0%}',
                f'of them had a collision ({span(summary["collision_interval"])})',
                'bad' if summary['collision_rate'] else 'good',
            ),
        ]
        if time['mean'] is not None:
            cards.append(
                (
                    f'{time["mean"]:.1f} s',
                    f'a successful drive; the expert takes {time["expert"]:.1f} s there',
                    '',
                )
            )
            cards.append(
                (f'{way["mean"]:.2f} m', f'its way; the expert goes {way["expert"]:.2f} m', '')
            )
        return cards


def trials_page(title: str, subtitle: str, suites: Sequence[SuiteView]) -> str:
    """Return the whole page."""
    return page.render(
        'trials.html',
        title=title,
        subtitle=subtitle,
        suites=suites,
        outcomes=OUTCOMES,
        points=_points,
        rgb=_rgb,
    )


def span(interval: Sequence[float]) -> str:
    """Return an interval of shares in words."""
    return f'{interval[0]:.0%} to {interval[1]:.0%}'


def times(against: Mapping) -> str:
    """Return how many times the expert's time or way was taken, in words."""
    return '–' if against['ratio'] is None else f'{against["ratio"]:.2f} x expert'


def _points(path: Sequence[Sequence[float]]) -> str:
    """Return points of a map, centimetres."""
    return ' '.join(f'{-100 * row[1]:.0f},{-100 * row[0]:.0f}' for row in path)


def _rgb(thing: Thing) -> str:
    """Return its colour, each part 0 to 255."""
    return ','.join(f'{255 * part:.0f}' for part in thing.rgb)
