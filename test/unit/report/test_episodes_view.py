"""`mobile_vla episodes view`: the content of the page, and its behaviour in a browser."""

import base64
import json
import os
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from browser import CHROMIUM, dump_dom, with_script
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.report.builders.episode_view import read_view
from mobile_vla_ros.report.pages import page as pages
from mobile_vla_ros.report.pages.episodes_page import EpisodeView, episodes_page
from mobile_vla_ros.types import Command
from small_episodes import (
    CREATED_NS,
    PERIOD_NS,
    START_NS,
    WRIST,
    compressed,
    encoded,
    write_episode,
    write_rows,
)

INSTRUCTION = 'go to the "red" <b>box</b> & stop</script>'
PLENTY = 1_000_000


def write_bad(folder: Path) -> Path:
    """Write an episode without commands whose id is later than the others; return its path."""
    writer = EpisodeWriter(folder, EpisodeInfo('stop'), CREATED_NS + 60 * 10**9)
    for index in range(5):
        stamp_ns = START_NS + index * PERIOD_NS
        writer.add_frame(encoded(index), stamp_ns, stamp_ns)
    writer.add_event('problem', START_NS + 2 * PERIOD_NS, 'no command <i>')
    return writer.close('failure')


def write_proposals(writer: EpisodeWriter):
    """Write proposals of 0.5 m/s, the last ones NaN."""
    for index in range(20):
        stamp_ns = START_NS + index * PERIOD_NS
        value = np.nan if index > 15 else 0.5
        writer.add_proposal(np.full(6, value), stamp_ns - PERIOD_NS, stamp_ns)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Episodes from old to new: a good one, one with proposals and HTML in its text, a bad one."""
    folder = tmp_path_factory.mktemp('episodes')
    for number, (frames, instruction) in enumerate(
        [(30, 'go to the blue ball'), (20, INSTRUCTION)]
    ):
        writer = EpisodeWriter(
            folder,
            EpisodeInfo(instruction),
            CREATED_NS + number * 10**9,
            proposals=instruction == INSTRUCTION,
        )
        write_rows(writer, frames)
        if instruction == INSTRUCTION:
            write_proposals(writer)
        writer.close('success')
    write_bad(folder)
    return folder


@pytest.fixture(scope='module')
def html(folder):
    """The page of the folder."""
    assert main(['episodes', 'view', str(folder)]) == 0
    return folder / 'episodes.html'


def cards(text: str) -> list[str]:
    """Return the ids of the cards in the page's order."""
    return re.findall(r'<article class="episode \w+" id="([^"]+)"', text)


def test_a_page_is_self_contained_and_bad_episodes_come_first(folder, html):
    """One file with a card for every episode, escaped text and no address."""
    text = html.read_text()
    assert len(cards(text)) == 3
    assert cards(text)[0] == id_of(folder, 'stop')
    assert 'no command was received' in text
    assert '<b>box' not in text and '<i>' not in text
    assert 'go to the &#34;red&#34; &lt;b&gt;box&lt;/b&gt; &amp; stop&lt;/script&gt;' in text
    for outside in ('<link', 'src="http', 'href="http', 'url(http', '@import', 'fetch('):
        assert outside not in text
    assert 'id="edit"' not in text and '<nav>' not in text and 'connect-src' not in text
    assert [path.name for path in folder.glob('.*.html.*')] == []


def id_of(folder: Path, instruction: str) -> str:
    """Return the id of the episode with an instruction."""
    from mobile_vla_ros.episode.storage.reader import Episode, find_episodes

    for path in find_episodes(folder):
        with Episode.open(path) as episode:
            if episode.instruction == instruction:
                return episode.episode_id
    raise AssertionError(instruction)


def test_proposals_are_shown_beside_the_commands(folder, html):
    """At their receipt, like commands, on a common scale; other episodes have none."""
    text = html.read_text()
    data = {name: data_of(text, name) for name in cards(text)}
    with_them = data.pop(id_of(folder, INSTRUCTION))
    assert with_them['proposals'] == [[index / 10, 0.5, 0.5, 0.5, 2] for index in range(16)]
    assert with_them['scale'] == [1.0, 1.0, 0.5]
    assert not any('proposals' in one for one in data.values())
    alone = EpisodeView('a', 'go', 'unknown', 'good', [], 0.0, 0)
    assert 'proposed by the policy' in text
    assert 'proposed by the policy' not in episodes_page('t', 's', [alone])


def test_fewer_episodes_are_the_worst_ones(folder, tmp_path, capsys):
    """`--takes 2` of 3: the bad one is shown, and the page names the flag for all."""
    out = tmp_path / 'some.html'
    assert main(['episodes', 'view', str(folder), '--takes', '2', '--out', str(out)]) == 0
    assert f'{out}: 2 episodes' in capsys.readouterr().out
    text = out.read_text()
    assert len(cards(text)) == 2 and cards(text)[0] == id_of(folder, 'stop')
    assert '2 of 3 episodes are shown' in text and '--takes 3' in text


def test_a_single_file_has_its_own_page(tmp_path, capsys):
    """The page of a file, also an unfinished one, is beside it and has its name."""
    path = write_episode(tmp_path, frames=70)
    path = path.rename(tmp_path / os.fsdecode(b'a\xff.h5'))  # a name that is not UTF-8
    assert main(['episodes', 'view', str(path)]) == 0
    text = path.with_suffix('.html').read_text()
    assert len(data_of(text, 'a?')['images']) == 70, 'a page of one episode has all images'
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 5)
    writer.flush()
    assert main(['episodes', 'view', str(writer.part_path)]) == 0
    text = (tmp_path / f'{writer.episode_id}.html').read_text()
    assert 'the episode is unfinished' in text and 'episodes recover' in text
    writer.discard()


def data_of(text: str, name: str) -> dict:
    """Return the data of an episode in the page."""
    card = text[text.index(f'id="{name}"') :]
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', card)[1])


def test_unreadable_files_and_frames_are_named_and_the_rest_is_shown(tmp_path, capsys):
    """A foreign file and a broken frame: status 1, one image less, no traceback."""
    (tmp_path / '20260101T000000Z_00000000.h5').write_text('no HDF5')
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 5)
    writer.add_frame(b'no image', START_NS + 5 * PERIOD_NS, START_NS + 5 * PERIOD_NS)
    writer.close()
    assert main(['episodes', 'view', str(tmp_path)]) == 1
    assert '00000000.h5 cannot be read' in capsys.readouterr().err
    text = (tmp_path / 'episodes.html').read_text()
    assert '00000000.h5 cannot be read' in text
    assert '1 of 6 images on this page cannot be read' in text


@pytest.mark.parametrize(
    ('extra', 'expected'),
    [
        (['--takes', '0'], '--takes must be at least 1'),
        (['--out', 'takes.h5'], '--out must name a page'),
        (['--out', '/no/such/folder/x.html'], 'no folder /no/such/folder'),
    ],
)
def test_bad_use_is_refused(folder, capsys, extra, expected):
    """Status 2, one line, and no episode is overwritten."""
    assert main(['episodes', 'view', str(folder), *extra]) == 2
    err = capsys.readouterr().err
    assert expected in err and err.count('\n') == 1


def test_a_page_is_replaced_atomically(tmp_path):
    """A failed write keeps the old page and leaves no other file."""
    out = tmp_path / 'page.html'
    pages.write(out, 'old')
    with pytest.raises(UnicodeEncodeError):
        pages.write(out, 'x' * 100_000 + '\ud800')
    assert out.read_text() == 'old' and list(tmp_path.iterdir()) == [out]


def test_images_and_commands_keep_to_the_budget(tmp_path):
    """A long episode has fewer images at even distances, and commands that keep their peaks."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 1)
    for index in range(5000):
        at_ns = START_NS + index * 20_000_000
        if index % 5 == 0 and index:
            writer.add_frame(encoded(index % 256, 'JPEG', (320, 240)), at_ns, at_ns)
        twist = np.array([0.2, 0.1, 0, 0, 0, 9.0 if index == 3333 else 0.0])
        writer.add_command(Command(twist, at_ns, at_ns, 'teleop'))
    path = writer.close('success')
    view = read_view(path, 60, 200, 40_000)
    assert sum(map(len, view.images)) * 4 / 3 <= 40_000
    assert 5 <= len(view.images) < 60
    steps = np.diff(view.index)
    assert steps.max() - steps.min() <= 1 and view.index[-1] == view.frames - 1
    assert len(view.rows) < 1000 and max(row[3] for row in view.rows) == 9.0
    assert len(read_view(path, 60, 200, PLENTY).images) == 60


def test_gaps_and_times_count_from_the_first_frame(tmp_path):
    """A second without frames is marked, and events have the same time base."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    write_rows(writer, 10)
    write_rows(writer, 10, first=20)
    writer.add_event('drop', START_NS + 20 * PERIOD_NS, '10 frames')
    writer.add_message(WRIST, compressed(encoded(1)), START_NS, START_NS)
    view = read_view(writer.close(), 60, 200, PLENTY)
    assert view.gaps == [[0.9, 2.0]]
    assert view.events == [[2.0, 'drop', '10 frames']]
    assert view.span == (0.0, 2.95) and view.times[0] == 0 and view.times[-1] == 2.9
    assert view.measures['other topics'] == '/wrist/image_raw/compressed'
    assert view.rows[1] == [0.05, 0.0, 1.0, 0.0, 1]


def test_edits_are_marked_and_seconds_stay_those_of_the_recording(tmp_path):
    """The card says what was edited, the time line where; the next edit counts alike."""
    path = write_episode(tmp_path, 40)
    values = {'trim': [1.0, 3.0], 'split': 2.05, 'exclude': 'a person in view'}
    edit({path: values}, by='anna', time_ns=CREATED_NS)
    view = read_view(path, 60, 200, PLENTY)
    assert (view.times[0], view.times[-1], view.span) == (1.0, 3.0, (1.0, 3.0))
    assert [event[:2] for event in view.events] == [[1.0, 'trim'], [2.05, 'split'], [3.0, 'trim']]
    assert view.verdict == 'excluded' and view.reasons[0] == 'excluded: a person in view'
    assert view.frames == 21 and view.gaps == []
    assert 'edited: trimmed to 1 to 3 s; excluded: a person' in episodes_page('t', 's', [view])
    edit({path: {'trim': [0.0, 3.0]}}, by='anna', time_ns=CREATED_NS)
    # Nothing is hidden before its first second.
    assert [event[0] for event in read_view(path, 60, 200, PLENTY).events] == [2.05, 3.0]


def test_an_empty_episode_has_a_card():
    """Without frames or commands there is a card without NaN."""
    text = episodes_page(
        't', 's', [EpisodeView('a', 'go', 'unknown', 'bad', ['0 frames'], 0.0, 0)]
    )
    assert data_of(text, 'a')['images'] == [] and 'class="blank"' in text
    assert '<script' not in episodes_page('t', 's', [], ['none'])


# A person's actions on the page; after each step the state is stored under its name.
HOOK = """
(function () {
  var states = {}, get = function (id) { return document.getElementById(id); };
  function keep(name) {
    states[name] = {
      take: document.querySelector('.chosen').id, time: +get('stage').dataset.time,
      frame: get('frame').textContent, picture: get('image').src, hash: location.hash,
      cursor: +/\\((.*)\\)/.exec(get('cursor').getAttribute('transform'))[1],
      now: [].map.call(document.querySelectorAll('.now'), function (e) { return e.textContent; }),
      said: [].map.call(document.querySelectorAll('.proposal'), function (e) {
        return e.textContent; }),
      proposed: document.querySelectorAll('path.proposed').length,
      shown: [].filter.call(document.querySelectorAll('.episode'), function (card) {
        return card.offsetHeight > 0; }).map(function (card) { return card.id; })};
  }
  function press(key, options) {
    document.body.dispatchEvent(new KeyboardEvent('keydown', Object.assign(
      {key: key, bubbles: true, cancelable: true}, options)));
  }
  function set(id, value, event) {
    get(id).value = value;
    get(id).dispatchEvent(new Event(event, {bubbles: true}));
  }
  keep('link');
  press('ArrowRight'); keep('right');
  press('ArrowLeft', {shiftKey: true}); keep('ten left');
  press('End'); keep('end');
  var slider = document.querySelector('#stage input[type=range]');
  slider.value = 3;
  slider.dispatchEvent(new Event('input')); keep('slider');
  var box = get('plot').getBoundingClientRect();
  get('plot').dispatchEvent(new PointerEvent('pointerdown', {buttons: 1,
    clientX: box.left + box.width * (78 + 704 / 2) / 800})); keep('drag');
  press('ArrowDown'); keep('down');
  press('ArrowUp'); keep('up');
  set('words', 'BLUE', 'input'); keep('words');
  set('words', '', 'input');
  var bad = document.querySelector('#verdicts input[value=bad]');
  bad.checked = false;
  bad.dispatchEvent(new Event('change', {bubbles: true})); keep('no bad');
  bad.checked = true;
  bad.dispatchEvent(new Event('change', {bubbles: true}));
  set('order', 'oldest', 'change'); keep('oldest');
  set('order', 'longest', 'change'); keep('longest');
  document.querySelector('.episode.bad').click(); keep('bad');
  states.events = get('events').textContent;
  set('speed', '4', 'change');
  var asked = performance.now(), wait = setInterval(function () {
    if (document.querySelector('.play').getAttribute('aria-label') === 'pause') { return; }
    clearInterval(wait);
    keep('played');
    states.took = performance.now() - asked;
    console.log('hook done');
    var log = document.body.appendChild(document.createElement('pre'));
    log.id = 'log';
    log.textContent = JSON.stringify(states);
  }, 5);
  press(' '); keep('playing');
})();
"""


@pytest.fixture(scope='module')
def browser_states(folder, html, tmp_path_factory):
    """The states of HOOK in a browser, the lines of the console, and the episode's id."""
    if CHROMIUM is None:
        pytest.skip('needs Chromium')
    name = id_of(folder, INSTRUCTION)
    hooked = with_script(html, HOOK, tmp_path_factory.mktemp('hooked'))
    dom, console = dump_dom(
        f'{hooked.as_uri()}#take={name}&t=1.0',
        tmp_path_factory.mktemp('chromium'),
        '--window-size=1200,1400',
        '--virtual-time-budget=20000',
    )
    found = re.search(r'<pre id="log">(.*?)</pre>', dom, re.DOTALL)
    assert found, f'the script did not reach its end: {console}'
    return json.loads(unescape(found[1])), console, name


def test_the_page_has_no_error_in_a_browser(browser_states):
    """The console has only the test's own line."""
    _, console, _ = browser_states
    assert len(console) == 1 and 'hook done' in console[0]


def test_a_link_leads_to_a_frame_of_an_episode(browser_states, folder):
    """#take=…&t=… selects the episode and the frame at that time, with its image and command."""
    states, _, name = browser_states
    view = read_view(folder / f'{name}.h5', 60, 200, PLENTY)
    link = states['link']
    assert (link['take'], link['time'], link['frame']) == (name, 1.0, 'frame 11 of 20')
    assert (
        link['picture'] == 'data:image/jpeg;base64,' + base64.b64encode(view.images[10]).decode()
    )
    assert link['now'] == ['0.10', '0.00', '-0.10']
    assert link['said'] == ['(0.50)'] * 3 and link['proposed'] == 3
    assert states['bad']['said'] == [''] * 3 and states['bad']['proposed'] == 0
    assert link['cursor'] == pytest.approx(78 + 704 * 1.0 / 1.95, abs=0.1)
    assert link['hash'] == f'#take={name}&t=1.000'


def test_keys_slider_and_drag_move_frame_and_cursor(browser_states):
    """One frame forward, ten back, the last one, a place on the slider, the middle of the plot."""
    states, _, name = browser_states
    frames = {key: states[key]['frame'] for key in ('right', 'ten left', 'end', 'slider', 'drag')}
    assert frames == {
        'right': 'frame 12 of 20',
        'ten left': 'frame 2 of 20',
        'end': 'frame 20 of 20',
        'slider': 'frame 4 of 20',
        'drag': 'frame 11 of 20',
    }
    for key in frames:
        state = states[key]
        assert state['cursor'] == pytest.approx(78 + 704 * state['time'] / 1.95, abs=0.1)
    assert len({states[key]['picture'] for key in frames}) == 5
    assert states['down']['take'] == states['link']['shown'][2]
    assert states['up']['take'] == name


def test_episodes_are_filtered_and_sorted(browser_states, folder):
    """By text in any case, verdict, age and length; by default the worst is first."""
    states, _, name = browser_states
    bad, blue = id_of(folder, 'stop'), id_of(folder, 'go to the blue ball')
    assert states['link']['shown'] == [bad, name, blue]
    assert states['words']['shown'] == [blue]
    assert set(states['no bad']['shown']) == {name, blue}
    assert states['oldest']['shown'] == [blue, name, bad]
    assert states['longest']['shown'] == [blue, name, bad]


def test_playing_runs_to_the_end_at_the_chosen_speed(browser_states, folder):
    """Without commands there are no values; events are text; 0.4 s at 4 × need 0.1 s."""
    states, _, _ = browser_states
    assert states['bad']['take'] == id_of(folder, 'stop')
    assert states['bad']['now'] == ['–', '–', '–']
    assert 'problem no command <i>' in states['events']
    assert states['playing']['frame'] == 'frame 1 of 5'
    assert states['played']['frame'] == 'frame 5 of 5'
    assert 90 <= states['took'] < 300
