"""The page of `mobile_vla simulate`: outcomes, maps, and films of failures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Outcome and meaning; `trials.css` has the colours.
OUTCOMES = {
    'success': 'followed the instruction',
    'wrong': 'reached another object, passed on the wrong side, or did not stop',
    'collision': 'touched an object or a wall',
    'timeout': 'ran out of time',
}
# Minimum extent of a map, metres: ahead of and behind the start, and to each side.
AHEAD_M, BEHIND_M, ASIDE_M = 3.6, 0.6, 1.6
MARGIN_M = 0.4


@dataclass(frozen=True)
class Thing:
    """
    An object seen from above.

    :param rgb: its colour, each part 0 to 1.
    :param x: metres ahead.
    :param y: metres to the left.
    :param radius: half the width, metres.
    :param clutter: never a target; a map is not extended for it.
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
    The camera's images along a path.

    :param poses: [x (m), y (m), yaw (rad)].
    :param times: of each pose, seconds since the start.
    :param images: JPEG files, without repetitions.
    :param shown: index of the image of each pose.
    """

    poses: Sequence[Sequence[float]]
    times: Sequence[float]
    images: Sequence[bytes]
    shown: Sequence[int]

    @property
    def data(self) -> dict:
        """The data for `trials.js`."""
        return {
            'poses': [[round(value, 3) for value in pose] for pose in self.poses],
            'times': [round(value, 2) for value in self.times],
            'shown': list(self.shown),
            'images': [base64.b64encode(image).decode() for image in self.images],
        }


@dataclass(frozen=True)
class DriveView:
    """One drive; paths have rows [x, y, …] in metres."""

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
        """Whether it did not succeed."""
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
        """The row in the table of all suites."""
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
        """The key figures."""
        summary = self.summary
        time, length = summary['time_s'], summary['length_m']
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
                    f'mean time of a success; the expert: {time["expert"]:.1f} s',
                    '',
                )
            )
            cards.append(
                (
                    f'{length["mean"]:.2f} m',
                    f'mean path of a success; the expert: {length["expert"]:.2f} m',
                    '',
                )
            )
        return cards


def trials_page(title: str, subtitle: str, suites: Sequence[SuiteView]) -> str:
    """Return the page."""
    from mobile_vla_ros.report.pages import page  # and jinja2, which the words here do not need

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
    """Return the ratio to the expert's time or path length, in words."""
    return '–' if against['ratio'] is None else f'{against["ratio"]:.2f} x expert'


def _points(path: Sequence[Sequence[float]]) -> str:
    """Return points of a map, centimetres."""
    return ' '.join(f'{-100 * row[1]:.0f},{-100 * row[0]:.0f}' for row in path)


def _rgb(thing: Thing) -> str:
    """Return the colour of an object, each part 0 to 255."""
    return ','.join(f'{255 * part:.0f}' for part in thing.rgb)
