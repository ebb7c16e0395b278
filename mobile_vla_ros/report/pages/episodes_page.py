"""The page of `mobile_vla episodes view`: a card a take, and a stage that plays the chosen one."""

import base64
import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mobile_vla_ros.report.pages import page, player
from mobile_vla_ros.report.pages.episodes_script import SCRIPT

# Worst first: the order of the cards, and what a verdict looks like.
VERDICTS = {'bad': '#b3261e', 'unfinished': '#59636e', 'poor': '#b56a00', 'good': '#0b7a4b'}
# By the number that a command's source has in an episode.
SOURCES = (
    ('unknown', '#7d8790'),
    ('teleop', '#1f6feb'),
    ('policy', '#8a3ffc'),
    ('takeover', '#d9730d'),
)
PROPOSED = '#c026a8'
ORDERS = {
    'worst': 'worst first',
    'newest': 'newest first',
    'oldest': 'oldest first',
    'longest': 'longest first',
    'shortest': 'shortest first',
    'instruction': 'by instruction',
}

STYLE = """
main { max-width: 1240px; }
.cards { margin: 14px 0; }
.card { padding: 8px 16px; flex-basis: 130px; }
.card b { font-size: 24px; }
#stage { position: sticky; top: 0; z-index: 1; background: #fff; border: 1px solid #d9dee3;
  border-radius: 10px; padding: 12px 16px; box-shadow: 0 6px 16px rgba(27, 31, 36, 0.10); }
h1, p.sub { max-width: none; overflow-wrap: anywhere; }
#about h3 { margin: 0; font-size: 19px; line-height: 1.3; overflow-wrap: anywhere; }
.about p, #about p { margin: 2px 0; font-size: 14px; max-width: none; }
#about p { display: inline-block; margin-right: 14px; }
.screen { display: flex; gap: 18px; align-items: flex-start; margin-top: 8px; }
.eye { flex: 0 0 292px; text-align: center; font-size: 13px; color: #59636e; }
.eye img { width: 292px; height: 264px; object-fit: contain; background: #1b1f24;
  border-radius: 6px; display: block; margin-bottom: 4px; }
.drawn { flex: 1; min-width: 0; }
#plot { width: 100%; height: auto; display: block; cursor: crosshair; touch-action: none;
  font-size: 12px; user-select: none; }
#plot path { fill: none; stroke-width: 1.6; }
#plot path.proposed { stroke: PROPOSED; stroke-width: 1.4; stroke-dasharray: 5 3; }
#plot text { fill: #59636e; }
#plot .lane { fill: none; stroke: #d9dee3; }
#plot .grid { stroke: #eef1f4; stroke-width: 1; }
#plot .zero { stroke: #c3cad1; stroke-width: 1; }
#plot .scale { text-anchor: end; font-size: 10px; }
#plot .now { font-size: 15px; font-weight: 600; fill: #1b1f24; }
#plot .said { font-size: 11px; fill: PROPOSED; }
#plot .empty { font-size: 15px; }
#plot .gap { fill: #f7d3d0; }
#plot .mark path { stroke: #59636e; stroke-width: 1; stroke-dasharray: 3 3; }
#plot .mark.loud path { stroke: #b3261e; stroke-dasharray: none; }
#plot .mark.loud text { fill: #b3261e; font-weight: 600; }
#plot #cursor { stroke: #1b1f24; stroke-width: 2; }
#stage .controls select { height: 28px; border: 1px solid #c3cad1; border-radius: 6px;
  background: #fff; }
.under { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: #59636e;
  margin-top: 6px; }
.under i { display: inline-block; width: 18px; border-top: 3px solid; vertical-align: middle;
  margin-right: 5px; }
.under i.proposed { border-top: 2px dashed PROPOSED; }
.under i.gap { border-top: 10px solid #f7d3d0; }
#stage details { font-size: 13px; margin-top: 4px; }
#stage summary { cursor: pointer; color: #59636e; }
#stage .more { display: flex; flex-wrap: wrap; gap: 8px 40px; max-height: 180px;
  overflow-y: auto; }
#events { margin: 4px 0; padding: 0; list-style: none; }
#events button { border: 0; background: #eef1f4; border-radius: 4px; cursor: pointer;
  font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: repeat(2, auto auto); gap: 0 12px; margin: 4px 0; }
dd { margin: 0; }
.sift { display: flex; flex-wrap: wrap; gap: 8px 18px; align-items: center; margin: 20px 0 10px;
  font-size: 14px; }
.sift fieldset { border: 0; padding: 0; margin: 0; display: flex; gap: 12px; }
.sift input[type=search] { width: 250px; }
.sift input[type=search], .sift select { height: 30px; border: 1px solid #c3cad1;
  border-radius: 6px; padding: 0 8px; background: #fff; font-size: 14px; box-sizing: border-box; }
.takes { display: grid; grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); gap: 10px; }
.take { display: flex; gap: 12px; background: #fff; border: 1px solid #d9dee3; padding: 8px;
  border-left: 5px solid; border-radius: 8px; cursor: pointer; text-align: left; font: inherit;
  color: inherit; scroll-margin: 560px 0 20px; }
.take[hidden] { display: none; }
.take:hover { background: #f6f8fa; }
.take.chosen { box-shadow: 0 0 0 2px #1f6feb; }
.take img, .take .blank { width: 112px; height: 84px; object-fit: cover; border-radius: 4px;
  background: #1b1f24; flex: none; }
.take h3 { font-size: 15px; line-height: 1.3; margin: 0; overflow-wrap: anywhere; }
.take .measures { display: none; }
.about { min-width: 0; flex: 1; }
.about p { font-size: 13px; line-height: 1.4; }
.badge { color: #fff; border-radius: 4px; padding: 0 7px; font-weight: 600; font-size: 13px; }
.why { color: #b3261e; } .poor .why { color: #8a5200; }
.note { background: #fff7d6; border: 1px solid #ecd98a; border-radius: 8px; padding: 6px 14px;
  font-size: 14px; max-width: none; overflow-wrap: anywhere; }
@media (max-height: 900px) { #stage { position: static; } .take { scroll-margin: 20px; } }
@media (max-width: 800px) { .screen { flex-direction: column; } #stage { position: static; } }
""".replace('PROPOSED', PROPOSED)


@dataclass(frozen=True)
class TakeView:
    """
    What the page shows of one take; times are seconds since the take's first frame or command.

    :param verdict: a key of ``VERDICTS``.
    :param reasons: why, in words.
    :param measures: more that is known of it: name and value as they are to be read.
    :param span: the first and the last second that the plot shows.
    :param times: of each picture; ``index``: its row in the episode; ``pictures``: JPEG files,
        an empty one where a frame cannot be read.
    :param rows: commands [t, vx (m/s), vy (m/s), wz (rad/s), number of the source].
    :param proposals: likewise what a policy proposed, in a take that tells of it.
    :param max_age_s: a command holds until the next one, or this long.
    :param gaps: [from, to] where frames are missing.
    :param events: [t, name, text].
    """

    name: str
    instruction: str
    outcome: str
    verdict: str
    reasons: Sequence[str]
    duration_s: float
    frames: int
    span: tuple[float, float] = (0.0, 0.0)
    times: Sequence[float] = ()
    index: Sequence[int] = ()
    pictures: Sequence[bytes] = ()
    rows: Sequence[Sequence[float]] = ()
    proposals: Sequence[Sequence[float]] = ()
    max_age_s: float = 0.5
    gaps: Sequence[Sequence[float]] = ()
    events: Sequence[Sequence] = ()
    measures: Mapping[str, str] = field(default_factory=dict)


def episodes_page(
    title: str, subtitle: str, takes: Sequence[TakeView], notes: Sequence[str] = ()
) -> str:
    """
    Return the whole page; it needs nothing from outside.

    :param takes: in the order of the cards before anybody sorts them.
    :param notes: sentences on top: what is not shown, and what could not be read.
    """
    parts = [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    if takes:
        # Of one take all is on the stage; the card is there for what the script reads from it.
        several = len(takes) > 1
        parts += [
            _numbers(takes) if several else '',
            _stage(proposed=any(take.proposals for take in takes)),
            '<div>' if several else '<div hidden>',
            _sift(takes),
            '<div class="takes" id="takes">',
            *map(_card, takes),
            '</div></div>',
        ]
    return page.page(
        title,
        subtitle,
        parts,
        style=player.STYLE + STYLE,
        script=player.SCRIPT + SCRIPT if takes else '',
    )


def _numbers(takes: Sequence[TakeView]) -> str:
    counts = Counter(take.verdict for take in takes)
    seconds = sum(take.duration_s for take in takes)
    kinds = len({take.instruction for take in takes})
    moods = {'good': 'good', 'bad': 'bad', 'unfinished': 'bad'}
    return page.cards(
        [
            (str(len(takes)), 'takes', ''),
            (f'{seconds / 60:.1f} min' if seconds >= 60 else f'{seconds:.1f} s', 'recorded', ''),
            (str(kinds), 'instruction' if kinds == 1 else 'instructions', ''),
            *(
                (str(counts[verdict]), verdict, moods.get(verdict, ''))
                for verdict in VERDICTS
                if counts[verdict]
            ),
        ]
    )


def _stage(*, proposed: bool) -> str:
    speeds = ''.join(
        f'<option value="{speed}"{" selected" if speed == 1 else ""}>{speed:g} ×</option>'
        for speed in (0.25, 0.5, 1, 2, 4, 8)
    )
    sources = ''.join(
        f'<span><i style="border-top-color:{colour}"></i>{name}</span>'
        for name, colour in SOURCES[1:]
    )
    if proposed:
        sources += '<span><i class="proposed"></i>proposed by the policy</span>'
    colours = ' '.join(colour for _, colour in SOURCES)
    return (
        f'<section id="stage" data-colours="{colours}"><div id="about"></div>'
        '<div class="screen"><div class="eye">'
        '<img id="picture" alt="what the camera saw"><span id="frame"></span></div>'
        '<div class="drawn"><svg id="plot" role="img" aria-label="the commands over time"></svg>'
        + player.controls(f'<select id="speed" aria-label="speed">{speeds}</select>')
        + f'<div class="under">{sources}<span><i class="gap"></i>no frame</span>'
        '<span>Keys: ← → a picture (⇧ ten), ↑ ↓ a take, space plays; drag in the plot.</span>'
        '</div></div></div><details><summary>Events and measures</summary><div class="more">'
        '<div><b>Events</b><ul id="events"></ul></div><div><b>Measures</b>'
        '<div id="measures"></div></div></div></details></section>'
    )


def _sift(takes: Sequence[TakeView]) -> str:
    counts = Counter(take.verdict for take in takes)
    boxes = ''.join(
        f'<label><input type="checkbox" value="{verdict}" checked> {verdict} ({counts[verdict]})'
        '</label>'
        for verdict in VERDICTS
        if counts[verdict]
    )
    words = ''.join(
        f'<option value="{html.escape(text)}">{count}</option>'
        for text, count in Counter(take.instruction for take in takes).most_common()
    )
    orders = ''.join(f'<option value="{key}">{text}</option>' for key, text in ORDERS.items())
    return (
        f'<div class="sift"><fieldset id="verdicts">{boxes}</fieldset>'
        '<input type="search" id="words" list="known" placeholder="words of the instruction" '
        f'aria-label="instruction"><datalist id="known">{words}</datalist>'
        f'<select id="order" aria-label="order">{orders}</select><span id="count"></span>'
        '</div><p id="none" hidden>No take is like that.</p>'
    )


def _card(take: TakeView) -> str:
    """Return a card: what is read at a glance, and as JSON what the stage needs."""
    thumb = len(take.pictures) // 2
    pictures = [base64.b64encode(picture).decode() for picture in take.pictures]
    if pictures and pictures[thumb]:
        face = f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{pictures[thumb]}">'
        pictures[thumb] = ''  # the script takes it from the card
    else:
        face, thumb = '<div class="blank"></div>', -1
    data = {
        'span': take.span,
        'times': take.times,
        'index': take.index,
        'thumb': thumb,
        'frames': take.frames,
        'pictures': pictures,
        'rows': take.rows,
        'gaps': take.gaps,
        'events': take.events,
        'max_age_s': take.max_age_s,
        'scale': _scale([*take.rows, *take.proposals]),
        **({'proposals': take.proposals} if take.proposals else {}),
    }
    measures = ''.join(
        f'<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>'
        for name, value in take.measures.items()
    )
    why = f'<p class="why">{html.escape("; ".join(take.reasons))}</p>' if take.reasons else ''
    colour = VERDICTS[take.verdict]
    return (
        f'<article class="take {take.verdict}" id="{html.escape(take.name)}" tabindex="0" '
        f'data-verdict="{take.verdict}" data-rank="{list(VERDICTS).index(take.verdict)}" '
        f'data-seconds="{take.duration_s:.3f}" '
        f'data-instruction="{html.escape(take.instruction)}" style="border-left-color:{colour}">'
        f'{face}<div class="about"><h3>{html.escape(take.instruction)}</h3>'
        f'<p><span class="badge" style="background:{colour}">{take.verdict}</span> '
        f'{html.escape(take.outcome)} · {take.duration_s:.1f} s · {take.frames} frames</p>'
        f'{why}<p class="sub">{html.escape(take.name)}</p></div>'
        f'<div class="measures"><dl>{measures}</dl></div>'
        f'<script type="application/json">{_json(data)}</script></article>'
    )


def _scale(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return what each lane reaches to: vx and vy alike, so that they can be compared."""
    linear = max([0.1, *(abs(row[column]) for row in rows for column in (1, 2))])
    return [linear, linear, max([0.1, *(abs(row[3]) for row in rows)])]


def _json(data: Mapping) -> str:
    """Return JSON that can stand inside of a script element, whatever words are in it."""
    return json.dumps(data, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
