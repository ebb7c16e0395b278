"""What a training would learn from, measured before it starts."""

import json

import h5py
import numpy as np
import pytest

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.segments import Sampling
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.storage.reader import find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation import audit
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, encoded

AXES = ['linear_x', 'linear_y']
S = 1_000_000_000
DOCUMENTED = {
    *('frames', 'windows', 'window_share', 'target_share', 'held_share', 'stale_share'),
    *(
        'unreadable',
        'lost_share',
        'zero_share',
        'scale',
        'unknown_words',
        'equal_instructions',
        'clock_steps',
        'verdict',
    ),
}


def write(folder, number, *, camera_hz=10.0, command_s=0.1, twist=(0.3, 0.0), **info):
    """Write ten seconds of driving with a command every ``command_s``."""
    start_ns = CREATED_NS + number * 100 * S
    info = {'instruction': 'go to the red box', 'base_command_timeout_s': None} | info
    writer = EpisodeWriter(folder, EpisodeInfo(**info), start_ns)
    rows = [(k / camera_hz, 'frame') for k in range(round(10 * camera_hz))]
    rows += [(k * command_s, 'command') for k in range(round(10 / command_s))]
    for index, (at_s, kind) in enumerate(sorted(rows)):
        now_ns = start_ns + round(at_s * S)
        if kind == 'command':
            writer.add_command(Command([*twist, 0, 0, 0, 0], now_ns, now_ns))
        else:
            writer.add_frame(encoded(index), now_ns, now_ns)
    return writer.close('success')


def audited(folder, **options):
    """Audit a folder at 10 Hz."""
    return audit.audit_paths(find_episodes(folder), Sampling(), AXES, **options)


def test_steady_episodes_are_kept_whole(tmp_path):
    """Every window is learned, and nothing is held, stale or zero."""
    for number in range(3):
        write(tmp_path, number)
    found = audited(tmp_path)
    assert set(found) >= DOCUMENTED
    assert (found['frames'], found['windows'], found['window_share']) == (300, 291, 1.0)
    assert (found['held_share'], found['stale_share'], found['zero_share']) == (0, 0, 0)
    assert found['scale']['linear_x']['scale'] == pytest.approx(0.3)
    assert (found['lost_share'], found['verdict'], found['reasons']) == (0, 'good', [])
    assert json.loads(json.dumps(found)) == found
    audit.check_losses(found)


def test_what_somebody_excludes_or_splits_is_not_lost(tmp_path):
    """Excluded episodes are left out by name; no window could span a split."""
    paths = [write(tmp_path, number) for number in range(3)]
    why = {'exclude': 'a person in view'}
    edit({paths[0]: why, paths[1]: why, paths[2]: {'split': 5.05}}, by='anna', time_ns=0)
    found = audited(tmp_path)
    assert found['left_out'] == {
        str(path): f'it is excluded: {why["exclude"]}.' for path in paths[:2]
    }
    assert (found['episodes'], found['frames'], found['windows']) == (1, 100, 94)
    assert found['losses'] == {'left_out': 0, 'gaps': 0}
    assert (found['lost_share'], found['verdict']) == (0, 'good')
    audit.check_losses(found)


@pytest.mark.parametrize('timeout_s', [0.0, 0.5])
def test_commands_on_change_are_held_or_stale_by_the_base(tmp_path, timeout_s):
    """A command every two seconds: all of it is driving on a base that holds, a quarter else."""
    for number in range(2):
        write(tmp_path, number, command_s=2.0, base_command_timeout_s=timeout_s)
    found = audited(tmp_path)
    shares = (found['held_share'], found['stale_share'], found['zero_share'])
    if timeout_s:
        assert shares == pytest.approx((0, 0.7, 0.7), abs=0.03)
        assert found['verdict'] == 'bad'
        # No flag of train speaks for episodes that state their base.
        assert found['remedies'][-1].endswith('record or import with base_command_timeout_s 0')
        with pytest.raises(UserError, match=r'70% of what was driven.*--accept_losses'):
            audit.check_losses(found)
    else:
        print(f'\nshown 1: held commands: {shares[2]:.0%} taught as standing still')
        assert shares == pytest.approx((0.7, 0, 0), abs=0.03)
        assert found['verdict'] == 'good'


def test_a_slow_camera_and_refused_episodes_are_losses_with_a_remedy(tmp_path):
    """At 6 Hz driving would have no window at 10 Hz; the remedy is the camera's own rate."""
    write(tmp_path, 0)
    for number in (1, 2):
        write(tmp_path, number, camera_hz=6.0)
    found = audited(tmp_path)
    assert found['windows'] == 97 and found['lost_share'] > 0.5
    assert len(found['left_out']) == 2 and found['losses'] == {'left_out': 114, 'gaps': 0}


def test_files_that_cannot_be_read_are_lost(tmp_path):
    """Each like the mean of the others; one that somebody excluded is neither lost nor broken."""
    _, torn, out, broken = (write(tmp_path, number) for number in range(4))
    edit({out: {'exclude': 'a person walks through'}}, by='me', time_ns=CREATED_NS)
    torn.write_bytes(torn.read_bytes()[:3000])
    broken.write_bytes(b'nothing')
    found = audited(tmp_path)
    assert found['windows'] == 97 and len(found['left_out']) == 3 and found['unreadable'] == 2
    assert found['lost_share'] == pytest.approx(2 / 3, abs=0.01) and found['verdict'] == 'bad'
    assert '2 files cannot be read' in found['reasons']
    assert any('episodes recover' in remedy for remedy in found['remedies'])
    text = '\n'.join(audit.lines(found))
    assert 'scale linear_x' in text
    assert 'scale' not in '\n'.join(audit.lines(found, scales=False))


def test_a_clock_that_was_set_forward_is_no_gap_of_the_camera(tmp_path):
    """A robot without a clock of its own learns the date in its first recording."""
    path = write(tmp_path, 0)
    with h5py.File(path, 'r+') as file:
        for name in ('frames', 'commands'):
            for column in ('stamp_ns', 'received_ns', 'steady_ns'):
                times = file[f'{name}/{column}']
                times[len(times) // 2 :] += 3600 * S
    found = audited(tmp_path)
    assert found['lost_share'] < 0.6 and found['losses']['gaps'] < 110
    assert not any('--rate_hz' in remedy for remedy in found['remedies'])


def test_words_against_what_was_driven_are_named(tmp_path):
    """A sentence of the wrong side, one for both sides, unknown words, equal instructions."""
    for number in range(3):
        write(tmp_path / 'a', number, twist=(0.3, -0.3), instruction='go to the left box')
    write(tmp_path / 'a', 5, twist=(0.3, 0.3), instruction='stop to the right of the box')
    write(tmp_path / 'a', 6, twist=(0.3, 0.3), instruction='turn left')
    found = audited(tmp_path / 'a')
    assert found['against_words'] == {'go to the left box': 3}
    write(tmp_path / 'b', 0, twist=(0.3, -0.3))
    write(tmp_path / 'b', 1, twist=(0.3, 0.3))
    assert audited(tmp_path / 'b')['opposite_drives'] == ['go to the red box']


def test_colours_that_tell_the_side_are_named(tmp_path):
    """Red is always on the left and blue on the right: no image is needed."""
    for number in range(6):
        colour, turn = ('red', 0.3) if number % 2 else ('blue', -0.3)
        write(tmp_path, number, twist=(0.3, turn), instruction=f'go to the {colour} box')
    found = audited(tmp_path)
    assert found['colour_sides'] == {'blue': 'right', 'red': 'left'}
    assert 'the colour word alone tells where to drive: blue right, red left' in found['reasons']
    write(tmp_path, 6, twist=(0.3, 0.3), instruction='go to the blue ball')
    assert audited(tmp_path)['colour_sides'] == {}


def test_words_that_a_tokenizer_does_not_know_are_named(tmp_path):
    """`builtin:tiny` reads two Korean sentences as the same three `<unk>`."""
    for number, text in enumerate(['빨간 상자로 가', '파란 상자로 가', 'go to the red box']):
        write(tmp_path, number, instruction=text)
    assert audited(tmp_path)['unknown_words'] is None
    found = audited(tmp_path, backbone='builtin:tiny')
    assert found['unknown_words'] == ['가', '빨간', '상자로', '파란']
    assert found['equal_instructions'] == [['빨간 상자로 가', '파란 상자로 가']]
    assert any('words that it knows' in remedy for remedy in found['remedies'])


def test_capitals_and_spaces_make_no_other_instruction(tmp_path):
    """They are the same sentence, so it does no harm that the tokenizer ignores them."""
    write(tmp_path, 0, instruction='Go to the  red box')
    write(tmp_path, 1, instruction='go to the red box')
    found = audited(tmp_path, backbone='builtin:tiny')
    assert (found['unknown_words'], found['equal_instructions']) == ([], [])


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    """The exit status says whether train would refuse."""
    for number in range(2):
        write(tmp_path, number, command_s=2.0, base_command_timeout_s=0.5)
    assert main(['episodes', 'audit', str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert 'audit: bad' in text and 'remedy: if the base holds' in text
    assert main(['episodes', 'audit', str(tmp_path), '--json', '--command_max_age_s', '0']) == 1
    found = json.loads(capsys.readouterr().out)
    assert np.isclose(found['stale_share'], 0.7, atol=0.03), 'the episodes state their base'
