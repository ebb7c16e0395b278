"""Edits beside an episode: applied by its reader, written whole or not at all."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mobile_vla_ros import Episode
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.segments import Sampling, fingerprint, read_episodes
from mobile_vla_ros.episode.catalog.edit import edit, logs, mend, table
from mobile_vla_ros.episode.catalog.index import EpisodeIndex
from mobile_vla_ros.episode.catalog.inspect import check
from mobile_vla_ros.episode.storage import edits
from mobile_vla_ros.episode.storage.recovery import is_damaged
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.corrections import PLAIN, WRONG
from mobile_vla_ros.episode.timing.timeline import (
    actions_ahead,
    arrival_times,
    kinds_ahead,
    segments,
    times_of,
)
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.report.builders.episode_view import read_view
from mobile_vla_ros.types import NANOSECONDS as SECOND_NS
from mobile_vla_ros.types import Command, ImageSpec
from small_episodes import (
    CREATED_NS,
    PERIOD_NS,
    START_NS,
    encoded,
    write_episode,
    write_rows,
)

WHO = {'by': 'anna', 'time_ns': CREATED_NS}


@pytest.fixture
def path(tmp_path):
    """Return an episode of 2 s: 20 frames, commands at 20 Hz."""
    return write_episode(tmp_path)


def change(path, **values) -> list[str]:
    return edit({path: values or None}, **WHO)


def state_of(folder) -> dict:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_words_are_edited_and_undone_and_the_recording_stays(path):
    """The newest word counts; an undo is an entry of its own."""
    recorded = path.read_bytes()
    (line,) = change(path, instruction='go to the blue ball', outcome='failure')
    assert 'go to the red box -> go to the blue ball' in line and 'success -> failure' in line
    change(path, instruction='go to the door')
    with Episode.open(path) as episode:
        assert (episode.instruction, episode.outcome) == ('go to the door', 'failure')
        assert episode.attributes['instruction'] == 'go to the door'
    with Episode.open(path, as_recorded=True) as episode:
        assert (episode.instruction, episode.outcome) == ('go to the red box', 'success')
    change(path)
    with Episode.open(path) as episode:
        assert episode.instruction == 'go to the blue ball'
    change(path, instruction='go to the door')
    change(path)
    assert [line.count('(undone)') for line in logs([path])] == [0, 1, 0, 1, 0]
    change(path)
    with Episode.open(path) as episode:
        assert episode.instruction == 'go to the red box' and episode.edits.digest == ''
    with pytest.raises(UserError, match='no edit to undo'):
        change(path)
    assert path.read_bytes() == recorded
    entry = json.loads(edits.path_of(path).read_text())['edits'][0]
    assert (entry['by'], entry['time_utc']) == ('anna', '2027-01-15T08:00:00Z')


def test_a_link_to_an_episode_has_its_edits(path, tmp_path):
    """A folder of links, such as a split, does not bring an excluded episode back."""
    change(path, exclude='dangerous')
    link = tmp_path / 'split' / path.name
    link.parent.mkdir()
    link.symlink_to(path)
    with Episode.open(link) as episode:
        assert episode.excluded == 'dangerous'


def test_a_trim_hides_what_lies_outside_and_keeps_what_is_in_force(path):
    """Frames, commands and events; the action at the first frame is the recording's."""
    with Episode.open(path) as episode:
        (whole,) = segments(episode, 10.0)
        last = episode.encoded(14)
    change(path, trim=[0.5, 1.4])
    with Episode.open(path) as episode:
        assert len(episode) == 10 and episode.recording.rows.tolist() == list(range(5, 15))
        assert np.array_equal(np.diff(episode.frame_stamp_ns), np.full(9, PERIOD_NS))
        assert episode.encoded(9) == episode.encoded(-1) == last
        first_ns, last_ns = START_NS + 5 * PERIOD_NS, START_NS + 14 * PERIOD_NS
        received_ns = episode.commands.received_ns
        assert received_ns[0] == first_ns - PERIOD_NS // 2 and received_ns[-1] == last_ns
        assert all(event.name not in ('start', 'stop') for event in episode.events)
        (part,) = segments(episode, 10.0)
    assert np.array_equal(part.twist, whole.twist[5:15])
    twist, real = actions_ahead(part, 3)
    assert np.array_equal(twist[real], actions_ahead(whole, 3)[0][5:15][real])
    change(path, trim=[0.0, 1.9])  # the newest counts, also when it is wider
    with Episode.open(path) as episode:
        assert len(episode) == 20


def test_seconds_count_on_the_steady_clock(tmp_path):
    """A step of the wall clock in mid-episode moves no edit, and cuts nothing off."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for at in range(30):
        steady_ns = START_NS + at * PERIOD_NS
        wall_ns = steady_ns - (3600 * SECOND_NS if at >= 15 else 0)
        writer.add_frame(encoded(at), wall_ns, wall_ns, steady_ns)
        writer.add_command(Command(np.full(6, at), wall_ns, wall_ns, 'teleop', steady_ns))
        if at == 18:
            writer.add_event('problem', wall_ns, steady_ns=steady_ns)
    path = writer.close('success')
    change(path, trim=[1.0, 2.0], split=1.75)
    with Episode.open(path) as episode:
        assert episode.recording.rows.tolist() == list(range(10, 21))
        assert episode.commands.twist[:, 0].tolist() == list(range(9, 21))
        assert [event.name for event in episode.events] == ['problem']
        found = segments(episode, 10.0, 3)
    assert [one.frame_index.tolist() for one in found] == [list(range(8)), list(range(8, 11))]
    assert [len(one.windows) for one in found] == [6, 1]


def test_a_trim_changes_no_time_of_a_frame(tmp_path):
    """A camera clock that fails in what is cut off is not trusted in what is left either."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for at in range(30):
        time_ns = START_NS + at * PERIOD_NS
        writer.add_frame(encoded(at), time_ns - 40_000_000 if at < 20 else 0, time_ns)
        writer.add_command(Command(np.full(6, 0.2), time_ns, time_ns, 'teleop'))
    path = writer.close('success')
    with Episode.open(path) as episode:
        whole, by = times_of(episode)
    change(path, trim=[0.5, 1.5])
    with Episode.open(path) as episode:
        part, _ = times_of(episode)
        note = arrival_times(episode).note
    assert by == 'received' and part.tolist() == whole[5:16].tolist()
    assert note.startswith('the camera clock')


def test_a_held_command_is_in_force_however_long_before_a_trim(tmp_path):
    """The base holds it: the frames that are left are driven, on the page too."""
    info = EpisodeInfo('go', base_command_timeout_s=0.0)
    writer = EpisodeWriter(tmp_path, info, CREATED_NS)
    writer.add_command(Command(np.full(6, 0.2), START_NS, START_NS, 'teleop'))
    for at in range(1, 41):
        time_ns = START_NS + at * PERIOD_NS
        writer.add_frame(encoded(at), time_ns, time_ns)
    path = writer.close('success')
    change(path, trim=[2.0, 3.9])
    with Episode.open(path) as episode:
        (found,) = segments(episode, 10.0)
        assert len(episode.commands) == 1
    assert len(found) == 20 and (found.twist == 0.2).all()
    view = read_view(path, 4, 16, 10**6)
    assert view.rows[0][0] + view.max_age_s >= view.span[1] == 3.9


def test_a_policy_s_mistake_stays_one_when_the_takeover_is_cut_off(tmp_path):
    """What a person corrected is nothing to learn, even if a trim hides the correction."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for at in range(20):
        time_ns = START_NS + at * PERIOD_NS
        writer.add_frame(encoded(at), time_ns, time_ns)
        source = 'policy' if at < 15 else 'takeover'
        writer.add_command(Command(np.full(6, 0.2), time_ns, time_ns, source))
    path = writer.close('success')
    change(path, trim=[0.0, 1.2])
    with Episode.open(path) as episode:
        (found,) = segments(episode, 10.0)
    assert kinds_ahead(found, 1)[:, 0].tolist() == [PLAIN] * 5 + [WRONG] * 8


def test_no_window_spans_a_split(path):
    """Each side is a segment; several splits add up; undo removes the last."""
    change(path, split=0.75)
    change(path, split=1.2)
    with Episode.open(path) as episode:
        found = segments(episode, 10.0, 4)
    assert [one.frame_index.tolist() for one in found] == [
        list(range(8)),
        list(range(8, 12)),
        list(range(12, 20)),
    ]
    assert [len(one.windows) for one in found] == [5, 1, 5]
    change(path)
    with Episode.open(path) as episode:
        assert len(segments(episode, 10.0)) == 2


def test_a_split_at_a_shown_second_begins_with_its_frame(tmp_path):
    """Pages show milliseconds: frames at 1.0003 s and 1.0998 s are those at 1.000 and 1.100."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for at in range(20):
        time_ns = START_NS + at * PERIOD_NS + {10: 300_000, 11: -200_000}.get(at, 0)
        writer.add_frame(encoded(at), time_ns, time_ns)
        writer.add_command(Command(np.full(6, 0.2), time_ns, time_ns, 'teleop'))
    path = writer.close('success')
    shown = read_view(path, 60, 16, 10**6).times
    for row in (10, 11):
        change(path, split=shown[row])
    with Episode.open(path) as episode:
        found = [one.frame_index.tolist() for one in segments(episode, 10.0)]
    assert found == [list(range(10)), [10], list(range(11, 20))]


@pytest.mark.parametrize(
    ('values', 'sentence'),
    [
        ({'trim': [1.0, 5.0]}, 'to 5 s of an episode that ends at 1.900 s'),
        ({'trim': [1.31, 1.39]}, 'leaves no frame'),
        ({'trim': [1.0, 0.5]}, 'the first before the last'),
        ({'trim': [-1.0, 1.5]}, 'two seconds'),
        ({'split': 1.9}, 'a split at 1.9 s'),
        ({'split': float('nan')}, 'not a second'),
        ({'instruction': '  '}, 'instruction is'),
        ({'instruction': 'a' * 501}, '1 to 500 characters'),
        ({'outcome': 'won'}, 'success, failure, unknown'),
        ({'exclude': ''}, 'exclude is'),
    ],
)
def test_a_bad_edit_is_a_sentence_and_changes_nothing(path, values, sentence):
    """Also for the other episodes of the same call."""
    other = write_episode(path.parent, 30)
    before = state_of(path.parent)
    with pytest.raises(UserError, match=sentence) as caught:
        edit({other: {'outcome': 'failure'}, path: values}, **WHO)
    assert str(path) in str(caught.value)
    assert state_of(path.parent) == before


def broken_lists(good: dict):
    """Yield bytes that are no list of the episode, or one that does not fit it."""
    entry = good['edits'][0]

    def with_entry(**values):
        return {**good, 'edits': [{**entry, **values}]}

    yield b'', 'Expecting value'
    yield json.dumps(good).encode()[:-20], 'delimiter|Unterminated'
    yield b'[' * 100_000, 'recursion'
    yield b' ' * (edits.MAX_BYTES + 1), 'bytes'
    for content, sentence in (
        ([good], 'no JSON object'),
        ({**good, 'format': 'x'}, 'no JSON object'),
        ({**good, 'version': 2}, 'version 2.*[Uu]pdate'),
        ({**good, 'version': True}, 'version True'),
        ({**good, 'more': 1}, 'the keys'),
        ({**good, 'episode_id': 'x'}, "edits of the episode 'x'"),
        ({**good, 'edits': []}, 'no list'),
        (with_entry(action='undo', values={}), 'no edit before it'),
        (with_entry(action='merge'), 'no known action'),
        (with_entry(values={}), 'no known action'),
        (with_entry(values={'rotate': 90}), 'rotate'),
        (with_entry(values={'trim': [0, 99]}), 'ends at 1.900 s'),
        (with_entry(values={'trim': [0, True]}), 'two seconds'),
        (with_entry(values={'split': 1e400}), 'not a second'),
        (with_entry(values={'instruction': 'a\ud800'}), 'instruction'),
        (with_entry(values={'outcome': ['success']}), 'outcome'),
        (with_entry(by=7), 'a text'),
        ({**good, 'edits': [{**entry, 'more': 1}]}, 'exactly the keys'),
    ):
        yield json.dumps(content).encode(), sentence


def test_a_broken_list_refuses_the_episode_and_every_edit(path):
    """The episode is not read as if it had none; the sentence names the list."""
    change(path, outcome='failure')
    listed = edits.path_of(path)
    for data, sentence in broken_lists(json.loads(listed.read_text())):
        listed.write_bytes(data)
        for attempt in (Episode.open, lambda one: change(one, outcome='success')):
            with pytest.raises(UserError, match=rf'(?s){listed.name}.*{sentence}'):
                attempt(path)
        assert listed.read_bytes() == data
        Episode.open(path, as_recorded=True).close()
    listed.unlink()
    listed.symlink_to('nowhere')
    with pytest.raises(UserError, match='No such file'):
        Episode.open(path)


def test_reasons_are_checked_and_folders_locked_once(path):
    """What is written can be read again; two spellings of a folder are one folder."""
    for why in ('a' * 501, 'two\nlines', 'not \udcff text'):
        with pytest.raises(UserError, match='nothing was changed'):
            edit({path: {'outcome': 'failure'}}, **WHO, why=why)
    other = write_episode(path.parent, 10)
    elsewhere = path.parent / 'x' / '..' / other.name
    (path.parent / 'x').mkdir()
    assert len(edit({path: {'outcome': 'failure'}, elsewhere: {'split': 0.3}}, **WHO)) == 2
    with pytest.raises(UserError, match='named twice'):
        edit({other: {'split': 0.4}, elsewhere: {'split': 0.5}}, **WHO)


EDIT = """
import sys
from pathlib import Path
from mobile_vla_ros.episode.catalog.edit import edit
for number in range(10):
    edit({Path(sys.argv[1]): {'instruction': f'{sys.argv[2]} {number}'}}, by='x', time_ns=0)
"""


def test_a_key_drops_the_last_seconds_and_turns_the_outcome(tmp_path):
    """Again and again, each as an edit of its own, until nothing would be left."""
    path = write_episode(tmp_path, 121)
    for last in (7.0, 2.0):
        mend(path, 'trim', '', **WHO)
        with Episode.open(path) as episode:
            assert episode.edits.trim == (0.0, last) and len(episode) == 10 * last + 1
    with pytest.raises(UserError, match=r'no 5 s to drop; got 2\.0 s'):
        mend(path, 'trim', '', **WHO)
    mend(path, 'undo', '', **WHO)
    assert [mend(path, 'outcome', '', **WHO).split()[-1] for _ in range(3)] == [
        'failure',
        'unknown',
        'success',
    ]
    mend(path, 'instruction', 'go home', **WHO)
    with Episode.open(path) as episode:
        assert episode.instruction == 'go home' and episode.edits.trim == (0.0, 7.0)


def test_edits_at_once_all_land(path):
    """Two processes with ten edits each: twenty entries, each process's in order."""
    processes = [subprocess.Popen([sys.executable, '-c', EDIT, path, name]) for name in 'ab']
    assert [process.wait(60) for process in processes] == [0, 0]
    with Episode.open(path) as episode:
        texts = [entry.values['instruction'] for entry in episode.edits.log]
    for name in 'ab':
        assert [text for text in texts if text[0] == name] == [f'{name} {n}' for n in range(10)]
    assert len(list(path.parent.iterdir())) == 2


def test_a_table_edits_many_at_once(path, tmp_path):
    """Names are those in the folder of the table; empty cells change nothing."""
    other = write_episode(tmp_path, 10)
    csv = tmp_path / 'table.csv'
    csv.write_text(
        '\ufefffile,instruction,outcome\n'
        f'{path.name},go to the door,\n{other.stem},"left, then right",failure\n',
        encoding='utf-8',
    )
    assert len(edit(table(csv), **WHO)) == 2
    with Episode.open(path) as episode:
        assert (episode.instruction, episode.outcome) == ('go to the door', 'success')
    with Episode.open(other) as episode:
        assert (episode.instruction, episode.outcome) == ('left, then right', 'failure')
    before = state_of(tmp_path)
    assert all(line.endswith('unchanged') for line in edit(table(csv), **WHO))
    assert state_of(tmp_path) == before


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('file,outcome\nabsent,success\n', 'do not exist; nothing was changed; got absent'),
        ('file,outcome\n{0},success\n./{0}.h5,failure\n', 'twice'),
        ('file;outcome\n{0};success\n', 'separated by commas'),
        ('file,outcom\n{0},success\n', 'Did you mean .outcome'),
        ('file,outcome\n{0}\n', 'row 1 of .* is incomplete'),
        ('file\n{0}\n', 'other columns'),
        ('', 'other columns'),
        ('file,outcome\n{0},won\n', 'success, failure, unknown'),
        ('file,outcome\n{0},"success\n', 'cannot be read as a table'),
    ],
)
def test_a_bad_table_is_a_sentence_and_changes_nothing(path, tmp_path, text, sentence):
    """An unknown file, a column or a value that does not exist."""
    csv = tmp_path / 'table.csv'
    csv.write_text(text.format(path.stem))
    before = state_of(tmp_path)
    with pytest.raises(UserError, match=sentence):
        edit(table(csv), **WHO)
    assert state_of(tmp_path) == before


def test_training_leaves_excluded_episodes_out_and_cites_edits(path, tmp_path):
    """By name, with the reason; a hash of the edits of each episode that is used."""
    other = write_episode(tmp_path, 30)
    change(path, exclude='the camera was covered')
    change(other, trim=[0.5, 2.0])
    loaded = read_episodes([path, other], Sampling())
    assert loaded.skipped == {str(path): 'it is excluded: the camera was covered.'}
    assert list(loaded.edits) == [other.stem]
    first = fingerprint(loaded.segments)
    change(other, trim=[0.6, 2.1])  # as many frames; other ones
    again = read_episodes([other], Sampling())
    assert again.edits != loaded.edits and fingerprint(again.segments) != first
    change(path)
    assert not read_episodes([path], Sampling()).skipped


def test_an_edit_during_a_training_does_not_shift_its_frames(path):
    """A segment names rows of the recording; an edit later hides none of them."""
    (segment,) = read_episodes([path], Sampling(window=2)).segments
    change(path, trim=[1.0, 1.5])
    images = FrameCache(ImageSpec(12, (0, 0, 0), (1, 1, 1))).frames(segment, slice(0, 20))
    assert images[:, 0, 0, 0].tolist() == list(range(20))
    (segment,) = read_episodes([path], Sampling(window=2)).segments
    images = FrameCache(ImageSpec(12, (0, 0, 0), (1, 1, 1))).frames(segment, slice(0, 6))
    assert images[:, 0, 0, 0].tolist() == list(range(10, 16))


def test_a_folder_shows_edits_at_once(path, tmp_path):
    """The index reads an episode again when its edits are new, changed, broken or gone."""
    listed = edits.path_of(path)

    def row():
        with EpisodeIndex(tmp_path) as index:
            index.refresh()
            (one,) = index.rows()
            return one.verdict, one.frames, one.instruction, one.edits

    assert row() == ('good', 20, 'go to the red box', 0)
    change(path, instruction='go', trim=[0, 1.0])
    assert row() == ('good', 11, 'go', 1)
    change(path, exclude='x')
    assert row() == ('excluded', 11, 'go', 2)
    listed.write_text('{')
    assert row()[0] == 'unreadable'
    listed.rename(tmp_path / 'x.edits.json')
    assert row() == ('good', 20, 'go to the red box', 0)
    with EpisodeIndex(tmp_path) as index:
        index.refresh()
        assert index.lost == 'edits without their episode: x.edits.json'


def test_a_trimmed_episode_is_judged_by_what_is_left(tmp_path):
    """A camera that stood still in the last second made it bad; without that second it is good."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 10)
    for at in range(10, 40):
        time_ns = START_NS + at * PERIOD_NS
        writer.add_frame(encoded(9), time_ns, time_ns)
        writer.add_command(Command(np.full(6, 0.2), time_ns, time_ns, 'teleop'))
    path = writer.close('success')
    assert check(path)['verdict'] == 'bad'
    assert list(read_episodes([path], Sampling()).skipped)
    change(path, trim=[0.0, 0.9])
    assert check(path)['verdict'] == 'good'
    assert not read_episodes([path], Sampling()).skipped


def test_a_broken_list_is_nothing_to_recover(path):
    """The episode itself is whole."""
    edits.path_of(path).write_text('{')
    assert not is_damaged(path)
