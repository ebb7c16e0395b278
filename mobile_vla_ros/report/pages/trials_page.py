"""The page of `mobile_vla simulate`: how trials ended, from above, and failures frame by frame."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobile_vla_ros.report.pages import page, player

# What an outcome looks like on the page, and what it means.
OUTCOMES = {
    'success': ('#0b7a4b', 'did what it was told'),
    'wrong': ('#8a3ffc', 'went to another object, by another way, or did not stop'),
    'collision': ('#b3261e', 'touched an object or a wall'),
    'timeout': ('#d98e04', 'was not done in time'),
}
INK, GREY = '#1b1f24', '#7d8790'
# What of the floor a map shows, metres: ahead of the start and to both sides; more where needed.
AHEAD_M, BEHIND_M, ASIDE_M = 3.6, 0.6, 1.6
MARGIN_M = 0.4
BASE_RADIUS_M = 0.18

STYLE = """
.maps { display: flex; flex-wrap: wrap; gap: 10px; margin: 10px 0; }
.drive { background: #fff; border: 1px solid #d9dee3; border-radius: 8px; padding: 8px; margin: 0;
  width: 153px; font-size: 13px; line-height: 1.35; box-sizing: content-box; }
.drive.film { width: 517px; max-width: calc(100% - 18px); }
.drive svg { width: 100%; height: auto; display: block; background: #f1f3f5; border-radius: 4px; }
.drive figcaption { margin: 6px 0 0; color: #1b1f24; font-size: 13px; overflow-wrap: anywhere; }
.drive .end { font-weight: 600; }
.drive .no { color: #59636e; }
.screen { display: flex; gap: 10px; align-items: flex-start; }
.screen > * { flex: 1 1 0; min-width: 0; }
.screen img { width: 100%; border-radius: 4px; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; color: #59636e;
  margin: 12px 0; }
.legend i { display: inline-block; width: 20px; border-top: 3px solid; vertical-align: middle;
  margin-right: 6px; }
summary { cursor: pointer; margin: 14px 0; font-weight: 600; }
"""

# Every `.film` carries its poses, its pictures and which picture belongs to which pose.
SCRIPT = """
document.querySelectorAll('.film').forEach(function (film) {
  var data = JSON.parse(film.querySelector('script').textContent);
  var image = film.querySelector('img'), base = film.querySelector('.base');
  var player = makePlayer(film, function (i) {
    var p = data.poses[i];
    image.src = 'data:image/jpeg;base64,' + data.pictures[data.shown[i]];
    base.setAttribute('transform', 'translate(' + -100 * p[1] + ' ' + -100 * p[0] +
      ') rotate(' + -p[2] * 180 / Math.PI + ')');
  });
  player.load(data.times);
  if (location.hash === '#' + film.id) { player.play(); }
});
"""


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


def trials_page(title: str, subtitle: str, suites: Sequence[SuiteView]) -> str:
    """Return the whole page."""
    parts = [_legend()]
    if len(suites) > 1:
        parts.insert(
            0,
            page.table(
                ['suite', 'success', '95 % interval', 'collisions', 'trials', 'time', 'way'],
                [_row(suite.name, suite.summary) for suite in suites],
            ),
        )
    for suite in suites:
        parts += _suite(suite)
    return page.page(
        title, subtitle, parts, style=player.STYLE + STYLE, script=player.SCRIPT + SCRIPT
    )


def _row(name: str, summary: Mapping) -> list[str]:
    return [
        name,
        f'{summary["success_rate"]:.0%}',
        span(summary['success_interval']),
        f'{summary["collision_rate"]:.0%}',
        str(summary['trials']),
        times(summary['time_s']),
        times(summary['length_m']),
    ]


def span(interval: Sequence[float]) -> str:
    """Return an interval of shares in words."""
    return f'{interval[0]:.0%} to {interval[1]:.0%}'


def times(against: Mapping) -> str:
    """Return how many times the expert's time or way was taken, in words."""
    return '–' if against['ratio'] is None else f'{against["ratio"]:.2f} x expert'


def _suite(suite: SuiteView) -> list[str]:
    summary = suite.summary
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
    parts = [
        page.heading(suite.name),
        page.paragraph(_sentence(suite.about)),
        page.cards(cards),
        page.table(
            ['task', 'drives', *OUTCOMES],
            [
                [kind, *(str(counts[name]) for name in ('drives', *OUTCOMES))]
                for kind, counts in summary['kinds'].items()
            ],
        ),
    ]
    failed = [drive for drive in suite.drives if drive.failed]
    right = [drive for drive in suite.drives if not drive.failed]
    if failed:
        films = [drive for drive in failed if drive.film]
        still = [drive for drive in failed if not drive.film]
        parts.append(f'<h3>{_count(len(failed), "drive")} failed</h3>')
        if films:
            if still:
                parts.append(
                    page.paragraph(
                        f'{len(films)} of them can be played; of the other {len(still)} only the '
                        'way is shown, to keep this page small.'
                    )
                )
            parts.append(
                '<div class="maps">'
                + ''.join(
                    _film(drive, f'{suite.name}-{number}') for number, drive in enumerate(films)
                )
                + '</div>'
            )
        if still:
            parts.append(_maps(still))
    if right:
        parts.append(
            f'<details{"" if failed else " open"}><summary>'
            f'{_count(len(right), "drive")} succeeded</summary>{_maps(right)}</details>'
        )
    return parts


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + '.'


def _count(number: int, what: str) -> str:
    return f'{number} {what}{"" if number == 1 else "s"}'


def _legend() -> str:
    entries = [(colour, 'solid', f'{name}: {what}') for name, (colour, what) in OUTCOMES.items()]
    entries.append((GREY, 'dotted', "the expert's way"))
    return (
        '<div class="legend">'
        + ''.join(
            f'<span><i style="border-top-color:{colour};border-top-style:{style}"></i>'
            f'{html.escape(text)}</span>'
            for colour, style, text in entries
        )
        + ('<span>A dashed ring: what the instruction is about.</span></div>')
    )


def _maps(drives: Sequence[DriveView]) -> str:
    return (
        '<div class="maps">'
        + ''.join(
            f'<figure class="drive">{_map(drive)}{_caption(drive)}</figure>' for drive in drives
        )
        + '</div>'
    )


def _caption(drive: DriveView) -> str:
    colour = OUTCOMES[drive.outcome][0]
    return (
        f'<figcaption><span class="end" style="color:{colour}">{html.escape(drive.outcome)}'
        f'</span> after {drive.elapsed_s:.1f} s<br>“{html.escape(drive.instruction)}”<br>'
        f'<span class="no">{html.escape(drive.name)}</span></figcaption>'
    )


def _film(drive: DriveView, name: str) -> str:
    film = drive.film
    data = json.dumps(
        {
            'poses': [[round(value, 3) for value in pose] for pose in film.poses],
            'times': [round(value, 2) for value in film.times],
            'shown': list(film.shown),
            'pictures': [base64.b64encode(picture).decode() for picture in film.pictures],
        },
        separators=(',', ':'),
    )
    return (
        f'<figure class="drive film" id="{html.escape(name)}"><div class="screen">'
        f'{_map(drive, base=True)}<img alt="what the camera saw"></div>'
        f'{player.controls()}{_caption(drive)}'
        f'<script type="application/json">{data}</script></figure>'
    )


def _map(drive: DriveView, *, base: bool = False) -> str:
    """Draw a drive from above, forward up, one unit a centimetre."""
    rows = [
        *drive.path,
        *drive.expert_path,
        *((thing.x, thing.y) for thing in drive.things if not thing.clutter),
    ]
    ahead = max([AHEAD_M, *(row[0] + MARGIN_M for row in rows)])
    behind = max([BEHIND_M, *(MARGIN_M - row[0] for row in rows)])
    aside = max([ASIDE_M, *(abs(row[1]) + MARGIN_M for row in rows)])
    parts = [_thing(thing) for thing in drive.things]
    parts.append(_line(drive.expert_path, GREY, 'stroke-width="4" stroke-dasharray="1 9"'))
    colour = OUTCOMES[drive.outcome][0]
    parts.append(_line(drive.path, colour, 'stroke-width="6"'))
    if drive.path:
        x, y = _place(drive.path[0])
        parts.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="8" fill="#fff" stroke="{INK}" '
            'stroke-width="3"/>'
        )
        x, y = _place(drive.path[-1])
        if drive.failed:
            parts.append(
                f'<path d="M{x - 11:.0f} {y - 11:.0f}l22 22m0 -22l-22 22" '
                f'stroke="{colour}" stroke-width="7"/>'
            )
        else:
            parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="10" fill="{colour}"/>')
    if base:
        radius = 100 * BASE_RADIUS_M
        parts.append(
            f'<g class="base"><circle r="{radius:.0f}" fill="{INK}" fill-opacity="0.35" '
            f'stroke="{INK}" stroke-width="3"/><path d="M0 0V{-radius:.0f}" '
            f'stroke="{INK}" stroke-width="4"/></g>'
        )
    return (
        f'<svg viewBox="{-100 * aside:.0f} {-100 * ahead:.0f} {200 * aside:.0f} '
        f'{100 * (ahead + behind):.0f}" role="img" aria-label="the way from above" fill="none"'
        f' stroke-linecap="round" stroke-linejoin="round">{"".join(parts)}</svg>'
    )


def _place(row: Sequence[float]) -> tuple[float, float]:
    return -100 * row[1], -100 * row[0]


def _line(path: Sequence[Sequence[float]], colour: str, style: str) -> str:
    if len(path) < 2:
        return ''
    points = ' '.join('{:.0f},{:.0f}'.format(*_place(row)) for row in path)
    return f'<polyline points="{points}" stroke="{colour}" {style}/>'


def _thing(thing: Thing) -> str:
    (x, y), r = _place((thing.x, thing.y)), 100 * thing.radius
    fill = 'rgb({:.0f},{:.0f},{:.0f})'.format(*(255 * part for part in thing.rgb))
    style = f'fill="{fill}" stroke="{INK}" stroke-width="2"'
    if thing.shape == 'box':
        text = (
            f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}" '
            f'{style}/>'
        )
    elif thing.shape == 'cone':
        text = f'<path d="M{x - r:.1f} {y + r:.1f}h{2 * r:.1f}L{x:.1f} {y - r:.1f}z" {style}/>'
    else:
        text = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" {style}/>'
        if thing.shape == 'cylinder':
            text += (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{0.55 * r:.1f}" stroke="{INK}" '
                'stroke-width="2"/>'
            )
    if thing.target:
        text += (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r + 13:.1f}" stroke="{INK}" '
            'stroke-width="5" stroke-dasharray="12 9"/>'
        )
    return text
