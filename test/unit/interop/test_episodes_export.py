"""`mobile_vla episodes export`: files and bags with the whole episode, or nothing."""

import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, START_NS, encoded, message, write_episode, write_rows

TWIST = 'geometry_msgs/msg/Twist'


def export(*arguments) -> int:
    """Run the command in this process; return its exit status."""
    return main(['episodes', 'export', *map(str, arguments)])


def write_mixed(folder):
    """Write an episode with JPEG and PNG, odd values, two sources and events; return its path."""
    writer = EpisodeWriter(
        folder,
        EpisodeInfo(
            'go to the "red" box, now',
            operator='ana',
            image_topic='/robot/camera/image_raw',
            command_topic='/robot/cmd_vel',
            frame_id='eye',
        ),
        CREATED_NS,
    )
    for index in range(6):
        at_ns = START_NS + index * 100_000_007
        writer.add_frame(encoded(index, 'JPEG' if index % 2 else 'PNG'), at_ns, at_ns + 1234)
        writer.add_command(
            Command(
                np.array([0.1 + 0.2, -1 / 3, 1e-17, 0, 5e300, index]),
                at_ns + 17,
                at_ns + 99,
                'teleop' if index < 4 else 'takeover',
            )
        )
    writer.add_event('takeover', START_NS, 'a, b\n"c"')
    return writer.close('failure')


def rows(path) -> list[dict]:
    """Return the rows of a table."""
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_byte_and_number(tmp_path):
    """The stored images, exact numbers, events with any text, and attributes."""
    path, out = write_mixed(tmp_path / 'episodes'), tmp_path / 'out'
    assert export(path, '--out', out, '--format', 'csv') == 0
    folder = out / path.stem
    with Episode.open(path) as episode:
        frames = rows(folder / 'frames.csv')
        assert [row['file'] for row in frames] == [
            f'frames/{index:06}.{"jpg" if index % 2 else "png"}' for index in range(6)
        ]
        for index, row in enumerate(frames):
            assert (folder / row['file']).read_bytes() == episode.encoded(index)
        assert [int(row['stamp_ns']) for row in frames] == episode.frame_stamp_ns.tolist()
        assert [int(row['received_ns']) for row in frames] == episode.frame_received_ns.tolist()
        commands = rows(folder / 'commands.csv')
        columns = list(commands[0])
        assert columns[:4] == ['stamp_ns', 'received_ns', 'source', 'linear_x']
        assert [
            [float(row[name]) for name in columns[3:9]] for row in commands
        ] == episode.commands.twist.tolist()
        assert columns[9:] == ['steady_ns']
        assert [row['source'] for row in commands] == ['teleop'] * 4 + ['takeover'] * 2
        assert [(row['name'], row['text']) for row in rows(folder / 'events.csv')] == [
            (event.name, event.text) for event in episode.events
        ]
        about = json.loads((folder / 'episode.json').read_text())
        assert about['instruction'] == episode.instruction and about['outcome'] == 'failure'
        assert about['health'] == episode.health


def test_an_exported_bag_is_imported_as_the_same_episode(tmp_path):
    """After export and import: the same image bytes, times, commands and instruction."""
    path, bags, back = write_mixed(tmp_path / 'episodes'), tmp_path / 'bags', tmp_path / 'back'
    assert export(path, '--out', bags, '--format', 'rosbag2') == 0
    assert main(['episodes', 'import', str(bags), '--out', str(back)]) == 0
    (again,) = find_episodes(back)
    with Episode.open(path) as old, Episode.open(again) as new:
        assert [new.encoded(index) for index in range(len(new))] == [
            old.encoded(index) for index in range(len(old))
        ]
        for name in ('frame_stamp_ns', 'frame_received_ns'):
            np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
        for name in ('twist', 'stamp_ns', 'received_ns'):
            np.testing.assert_array_equal(getattr(new.commands, name), getattr(old.commands, name))
        assert new.instruction == old.instruction
        assert new.attributes['frame_id'] == 'eye'
        assert new.attributes['image_topic'] == '/robot/camera/image_raw/compressed'
        assert new.attributes['command_topic'] == '/robot/cmd_vel'


def test_an_exported_bag_keeps_the_order_across_a_step_of_the_clock(tmp_path):
    """A bag is read by time: where the wall clock went back, its times follow the steady one."""
    writer = EpisodeWriter(tmp_path / 'takes', EpisodeInfo('go'), CREATED_NS)
    for row in range(60):
        wall_ns = CREATED_NS + row * 100_000_000 - (2_000_000_000 if row >= 30 else 0)
        steady_ns = 5_000_000_000 + row * 100_000_000
        writer.add_frame(encoded(row), wall_ns, wall_ns, steady_ns)
        speed = 0.3 if row < 30 else -0.3
        writer.add_command(Command([speed] + [0] * 5, wall_ns, wall_ns, steady_ns=steady_ns))
    path = writer.close('success')
    assert export(path, '--out', tmp_path / 'bags', '--format', 'rosbag2') == 0
    assert (
        main(['episodes', 'import', str(tmp_path / 'bags'), '--out', str(tmp_path / 'new')]) == 0
    )
    (again,) = find_episodes(tmp_path / 'new')
    with Episode.open(path) as one, Episode.open(again) as other:
        assert [other.encoded(row) for row in range(60)] == [one.encoded(row) for row in range(60)]
        assert other.commands.twist.tolist() == one.commands.twist.tolist()


def test_a_bag_has_metadata_that_no_message_has(tmp_path):
    """Outcome, events and command sources are JSON in the bag's custom data; the bag is MCAP."""
    path, bags = write_mixed(tmp_path / 'episodes'), tmp_path / 'bags'
    assert export(path, '--out', bags, '--format', 'rosbag2') == 0
    metadata = yaml.safe_load((bags / path.stem / 'metadata.yaml').read_text())[
        'rosbag2_bagfile_information'
    ]
    about = json.loads(metadata['custom_data']['mobile_vla_episode'])
    assert about['outcome'] == 'failure' and about['operator'] == 'ana'
    assert about['command_sources'] == [['teleop', 4], ['takeover', 2]]
    assert about['events'][0]['text'] == 'a, b\n"c"'
    assert metadata['storage_identifier'] == 'mcap'
    assert [(bags / path.stem / name).exists() for name in metadata['relative_file_paths']] == [
        True
    ]


def test_proposals_are_exported_beside_the_commands(tmp_path):
    """In a separate table and topic; an import does not mistake them for commands."""
    writer = EpisodeWriter(tmp_path / 'episodes', EpisodeInfo('go'), CREATED_NS, proposals=True)
    write_rows(writer, 4)
    wished = [[1 / 3, -0.1, 0, 0, 0, index] for index in range(3)]
    for index, twist in enumerate(wished):
        writer.add_proposal(twist, START_NS + index, START_NS + 100 + index)
    path, out, bags = writer.close(), tmp_path / 'out', tmp_path / 'bags'
    assert export(path, '--out', out, '--format', 'csv') == 0
    table = rows(out / path.stem / 'proposals.csv')
    assert [[float(value) for value in list(row.values())[2:8]] for row in table] == wished
    assert [(int(row['stamp_ns']), int(row['received_ns'])) for row in table] == [
        (START_NS + index, START_NS + 100 + index) for index in range(3)
    ]
    assert json.loads((out / path.stem / 'episode.json').read_text())['proposals'] == 3
    assert export(path, '--out', bags, '--format', 'rosbag2') == 0
    with AnyReader([bags / path.stem]) as bag:
        written = [
            (bag.deserialize(data, one.msgtype), at_ns)
            for one, at_ns, data in bag.messages(
                [one for one in bag.connections if one.topic == '/policy/cmd_vel']
            )
        ]
    assert [
        (topic.twist.linear.x, topic.twist.angular.z, topic.header.stamp.nanosec, at_ns)
        for topic, at_ns in written
    ] == [(1 / 3, index, index, START_NS + 100 + index) for index in range(3)]
    assert main(['episodes', 'import', str(bags), '--out', str(tmp_path / 'back')]) == 0
    with Episode.open(find_episodes(tmp_path / 'back')[0]) as again, Episode.open(path) as old:
        assert again.attributes['command_topic'] == '/cmd_vel'
        np.testing.assert_array_equal(again.commands.twist, old.commands.twist)


@pytest.mark.parametrize('kind', ['csv', 'rosbag2'])
def test_existing_exports_are_skipped_and_broken_episodes_are_named(tmp_path, capsys, kind):
    """A second run writes nothing; a broken frame fails only its episode and leaves no folder."""
    episodes, out = tmp_path / 'episodes', tmp_path / 'out'
    good = write_episode(episodes, frames=3)
    writer = EpisodeWriter(episodes, EpisodeInfo('go'), CREATED_NS + 1_000_000_000)
    write_rows(writer, 2)
    writer.add_frame(b'no image', START_NS + 2, START_NS + 2)
    broken = writer.close()
    assert export(episodes, '--out', out, '--format', kind, '--json') == 1
    printed = capsys.readouterr()
    done = {row['episode']: row for row in map(json.loads, printed.out.splitlines())}
    assert done[str(good)]['status'] == 'exported' and done[str(good)]['frames'] == 3
    assert done[str(broken)]['status'] == 'failed'
    assert 'broken at frame 2' in done[str(broken)]['reason']
    assert printed.err.count('\n') == 1 and 'Traceback' not in printed.err
    assert [path.name for path in out.iterdir()] == [good.stem]
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert export(good, '--out', out, '--format', kind) == 0
    assert f'{good.stem} exists: skipped' in capsys.readouterr().out
    other = {'csv': 'rosbag2', 'rosbag2': 'csv'}[kind]
    assert export(good, '--out', out, '--format', other) == 1
    assert f'is not a {other} export' in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


def test_an_unwritable_folder_is_refused(tmp_path, capsys):
    """A file where the folder should be: status 2 and one line."""
    path = write_episode(tmp_path, frames=2)
    (tmp_path / 'out').write_text('in the way')
    assert export(path, '--out', tmp_path / 'out', '--format', 'csv') == 2
    err = capsys.readouterr().err
    assert 'cannot be made' in err and err.count('\n') == 1


def test_stamps_out_of_a_message_s_range_are_named(tmp_path, capsys):
    """A stamp from the year 2096 fits into a table, but not into a bag."""
    writer = EpisodeWriter(tmp_path / 'episodes', EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(encoded(0), 4_000_000_000 * 10**9, START_NS)
    path = writer.close()
    assert export(path, '--out', tmp_path / 'out', '--format', 'rosbag2') == 1
    assert 'too large for a message' in capsys.readouterr().err
    assert export(path, '--out', tmp_path / 'out', '--format', 'csv') == 0


# Kills itself when it is about to open or rename a path that contains this text.
KILLED_AT = """
import os, signal, sys
moment, words = sys.argv[1:3]
def hook(event, arguments):
    if event == moment and words in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from mobile_vla_ros.cli.main import main
sys.exit(main(sys.argv[3:]))
"""


def test_a_kill_leaves_only_whole_episodes_and_the_next_export_continues(tmp_path):
    """SIGKILL at a frame, at the last file and at the rename: every visible export is whole."""
    episodes, out = tmp_path / 'episodes', tmp_path / 'out'
    names = sorted(write_episode(episodes, frames=5).stem for _ in range(3))
    command = ['episodes', 'export', str(episodes), '--out', str(out), '--format', 'csv']
    for whole, (moment, words) in enumerate(
        [
            ('open', f'{names[0]}/frames/000003'),
            ('open', f'{names[1]}/episode.json'),
            ('os.rename', names[2]),
        ]
    ):
        done = subprocess.run(
            [sys.executable, '-c', KILLED_AT, moment, words, *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert len(list(out.glob('.exporting_*'))) == 1, 'no more than the one just killed'
        assert sorted(path.name for path in out.glob('[!.]*')) == names[:whole]
        for name in names[:whole]:
            assert len(list((out / name / 'frames').iterdir())) == 5
            assert (out / name / 'episode.json').exists()
    assert main(command) == 0
    assert sorted(path.name for path in out.iterdir()) == names


def test_the_files_of_a_running_export_are_kept(tmp_path):
    """Two exports into one folder: the later one does not delete the other's files."""
    from mobile_vla_ros.interop import export as module

    with module.hidden_folder(tmp_path) as hidden:
        module.clear_away(tmp_path)
        assert hidden.exists()
    assert not hidden.exists()
    hidden.mkdir()
    module.clear_away(tmp_path)
    assert not hidden.exists()


def test_topics_are_exported_byte_for_byte(tmp_path):
    """With type, definition and hash; latched again; and in the place of our own of the name."""
    store = get_typestore(Stores.ROS2_JAZZY)

    def channel(topic: str, kind: str, **more) -> Channel:
        return Channel(
            topic,
            kind,
            store.generate_msgdef(kind, ros_version=2)[0],
            store.hash_rihs01(kind),
            **more,
        )

    tree = channel('/tf_static', 'tf2_msgs/msg/TFMessage', latched=True)
    speeds, odd = channel('/cmd_vel', TWIST), Channel('/odd', 'robot_msgs/msg/Odd')
    writer = EpisodeWriter(tmp_path / 'episodes', EpisodeInfo('go'), CREATED_NS, messages=True)
    writer.add_message(tree, message(3), 5, START_NS)
    write_rows(writer, 4)
    sent = [message(5 + row) for row in range(3)]
    for row, data in enumerate(sent):
        writer.add_message(speeds, data, 7, START_NS + row)
        writer.add_message(odd, message(row), 7, START_NS + row)
    path, bags = writer.close(), tmp_path / 'bags'
    assert export(path, '--out', bags, '--format', 'rosbag2') == 0
    with Reader(bags / path.stem) as bag:
        written = {one.topic: (one, []) for one in bag.connections}
        for connection, at_ns, data in bag.messages():
            written[connection.topic][1].append((at_ns, data))
    for one, data in ((tree, [message(3)]), (speeds, sent), (odd, [message(n) for n in range(3)])):
        connection, messages = written[one.topic]
        assert messages == [(START_NS + row, each) for row, each in enumerate(data)]
        assert (connection.msgtype, connection.msgdef.data) == (one.type, one.definition)
        assert connection.digest == (one.type_hash or 'INVALID')
    (qos,) = written['/tf_static'][0].ext.offered_qos_profiles
    assert qos.durability.name == 'TRANSIENT_LOCAL'
    assert len(written['/camera/image_raw/compressed'][1]) == 4 and len(written) == 5
    about = yaml.safe_load((bags / path.stem / 'metadata.yaml').read_text())
    custom = about['rosbag2_bagfile_information']['custom_data']['mobile_vla_episode']
    assert json.loads(custom)['topics']['/odd']['count'] == 3


def test_what_was_kept_as_it_arrived_and_is_trimmed_away_hides_no_stream(tmp_path):
    """Commands are exported when the trim left no raw message of their topic."""
    info = EpisodeInfo('go', command_topic='/cmd_vel')
    writer = EpisodeWriter(tmp_path / 'episodes', info, CREATED_NS, messages=True)
    writer.add_message(Channel('/cmd_vel', TWIST), message(1), START_NS, START_NS)
    write_rows(writer, 20)
    path, bags = writer.close(), tmp_path / 'bags'
    edit({path: {'trim': [0.5, 1.5]}}, by='anna', time_ns=0)
    with Episode.open(path) as episode:
        assert episode.topics['/cmd_vel'].count == 0
    assert export(path, '--out', bags, '--format', 'rosbag2') == 0
    with Reader(bags / path.stem) as bag:
        counts = {one.topic: one.msgcount for one in bag.connections}
    assert counts['/cmd_vel'] == len(episode.commands) > 0
