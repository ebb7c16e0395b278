"""Bags with holes, and bags of strangers: what is read of them, refused and counted."""

import shutil
import sqlite3
import struct

import numpy as np
import pytest
from backports import zstd

from bags import (
    PERIOD_NS,
    PNG,
    START_NS,
    STORE,
    drive,
    image,
    import_one,
    imported_episode,
    make,
    odometry,
    pixels_of,
    twist,
    write_bag,
)
from mcap_records import channel, chunk, mcap, message, record, records_of
from mobile_vla_ros.episode.timing.timeline import segments
from mobile_vla_ros.interop.bags import bag_files
from mobile_vla_ros.interop.bags.bag_files import MAX_BYTES
from mobile_vla_ros.interop.bags.ros1_file import MAGIC, Ros1File
from mobile_vla_ros.interop.imports import FAILED, IMPORTED
from mobile_vla_ros.interop.source import ImportOptions

WITHOUT_TIME = 'they have no time: 0, or from before /clock'


def chunked(messages, compression='', rows=10):
    """Return the channels, and the records in chunks, each with the channels."""
    channels, found = records_of(messages)
    parts = [found[row : row + rows] for row in range(0, len(found), rows)]
    return [
        chunk(channels + b''.join(data for _, data in part), compression, start_ns=part[0][0])
        for part in parts
    ]


def events(episode, name):
    """Return the texts of the events of a name."""
    return [event.text for event in episode.events if event.name == name]


@pytest.mark.parametrize('compression', ['', 'zstd', 'lz4', None])
def test_a_cut_mcap_is_read_up_to_the_cut(tmp_path, compression):
    """In the middle of a chunk too, and of a file without chunks; the cut is said."""
    messages = drive(30, image_of=lambda index, ns: image(pixels_of(index, (96, 72)), ns))
    channels, found = records_of(messages)
    records = (
        [channels, *(data for _, data in found)]
        if compression is None
        else chunked(messages, compression, rows=40)
    )
    whole = mcap(*records)
    bag = tmp_path / 'cut.mcap'
    bag.write_bytes(whole[: len(whole) // 2])
    result = import_one(bag, tmp_path / 'out', PNG)
    assert result.status == IMPORTED and 'it is cut short' in result.notes[0], result.reason
    with imported_episode(bag, tmp_path / 'other', PNG) as episode:
        print(f'\nshown 9: a cut MCAP ({compression}): {len(episode)} of 30 frames')
        last = len(episode) - 1  # zstd unpacks blocks of 128 KB: six images
        assert 7 <= last < 16
        assert np.array_equal(episode.frame(last).image, pixels_of(last, (96, 72)))
        assert 'it is cut short' in events(episode, 'problem')[0]
    bag.write_bytes(whole)
    with imported_episode(bag, tmp_path / 'whole', PNG) as episode:
        assert len(episode) == len(episode.commands) == 30
        assert not events(episode, 'problem')


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3', 'none'])
@pytest.mark.parametrize('back_ns', [4 * 10**9, 5 * 10**8, 260_000_000])
def test_each_side_of_a_step_back_stays_by_itself(tmp_path, storage, back_ns):
    """The clock is set back after 5 s: no frame is paired with the other side's command."""
    messages = [
        (topic, one, time_ns - (back_ns if time_ns >= START_NS + 5 * 10**9 else 0))
        for topic, one, time_ns in drive(
            100,
            image_of=lambda i, ns: image(pixels_of(i), ns - (back_ns if i >= 50 else 0)),
            command_of=lambda i, _: twist(0.3 if i < 50 else -0.2),
        )
    ]
    bag = write_bag(tmp_path / 'drive', messages, storage)
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert np.array_equal(episode.frame(50).image, pixels_of(50))
        found = segments(episode, 10.0, 4)
        assert [one.frame_index.tolist() for one in found] == [
            list(range(50)),
            list(range(50, 100)),
        ]
        assert set(found[0].twist[1:, 0]) == {0.3} and set(found[1].twist[1:, 0]) == {-0.2}
        wrong = (found[0].twist[:, 0] < 0).sum() + (found[1].twist[:, 0] > 0).sum()
        print(f'\nshown 2: a bag, {back_ns / 1e9:g} s back: {wrong} of 100 have the wrong sign')
        assert episode.health['clock_steps'] == 1


def test_messages_written_late_are_sorted(tmp_path):
    """A chunk for each topic, and images that took longer to compress than the next ones."""
    channels, found = records_of(drive(10))
    parts = [found[1::2], found[8::2], found[4:8:2], found[:4:2]]
    bag = tmp_path / 'mixed.mcap'
    bag.write_bytes(
        mcap(
            *(
                chunk(channels + b''.join(data for _, data in part), start_ns=part[0][0])
                for part in parts
            )
        )
    )
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert len(episode) == len(episode.commands) == 10
        assert (np.diff(episode.frame_received_ns) == PERIOD_NS).all()


@pytest.mark.parametrize(
    ('bomb', 'reason'),
    [
        (chunk(bytes(1 << 24), 'zstd', claims=8 << 30), 'a chunk is too large'),
        (chunk(bytes(1 << 24), 'zstd', claims=100), 'larger than it says'),
        (chunk(bytes(1 << 24), 'lz4', claims=100), 'larger than it says'),
        (record(5, struct.pack('<HIQQ', 1, 0, START_NS, 0) + bytes(MAX_BYTES)), 'too large'),
        (chunk(b'') * 20, 'too many pieces'),
    ],
    ids=['claims much', 'zstd', 'lz4', 'message', 'many chunks'],
)
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, bomb, reason):
    """Before it is unpacked."""
    monkeypatch.setattr(bag_files, 'MAX_PARTS', 20)
    bag = tmp_path / 'bomb.mcap'
    bag.write_bytes(mcap(*chunked(drive()), bomb))
    result = import_one(bag, tmp_path / 'out', PNG)
    assert result.status == FAILED and reason in result.reason


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_topics_that_are_not_needed_may_be_anything(tmp_path, storage):
    """A service event, unknown types, 60,000 of them, arrays of 10^9: named, and never parsed."""
    huge = 'uint8[1000000000] x\nX[1000000000] y\n---\n'
    if storage == 'mcap':
        bag = tmp_path / 'drive.mcap'
        others = b''.join(
            channel(one, f'/other_{one:05}', 'a/srv/B_Event', huge) for one in range(9, 60_009)
        )
        bag.write_bytes(mcap(*chunked(drive()), others, message(9, START_NS, b'rubbish')))
    else:
        bag = next(write_bag(tmp_path / 'drive', drive(), storage).glob('*.db3'))
        with sqlite3.connect(bag) as database:
            database.executemany(
                'INSERT INTO topics(name, type, serialization_format, offered_qos_profiles, '
                "type_description_hash) VALUES (?, 'a/srv/B_Event', 'cdr', '', '')",
                ((f'/other_{one:05}',) for one in range(9, 60_009)),
            )
    result = import_one(bag, tmp_path / 'out', PNG)
    assert result.status == IMPORTED, result.reason
    assert result.health['frames'] == result.health['commands'] == 12
    print(f'\nshown 9: a service definition and unknown types: {result.status}, named')
    assert result.notes[0].startswith('not imported: /other_00009 (a/srv/B_Event), ')
    assert result.notes[0].endswith(' and 59995 more')


def test_a_message_that_lies_or_is_too_large_is_counted(tmp_path):
    """An image that claims 4 GB of pixels, and a row of 120 MB: two frames lost."""
    bag = next(write_bag(tmp_path / 'drive', drive(100), 'sqlite3').glob('*.db3'))
    with sqlite3.connect(bag) as database:
        (data,) = database.execute('SELECT data FROM messages LIMIT 1').fetchone()
        size = struct.pack('<I', 32 * 24 * 3)
        lie = data.replace(size, b'\xff\xff\xff\xff', 1)
        assert lie != data
        database.execute('UPDATE messages SET data = ? WHERE rowid = 1', (lie,))
        database.execute('UPDATE messages SET data = zeroblob(120000000) WHERE rowid = 3')
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert len(episode) == 98 and episode.health['drops'] == 2
        assert 'a message cannot be read' in events(episode, 'drop')[0]
        assert f'more than {MAX_BYTES} bytes' in events(episode, 'drop')[1]


def test_rows_in_the_log_of_a_sqlite_bag_are_read(tmp_path):
    """A recorder that was killed leaves them in a -wal; the user's files stay as they are."""
    live = next(write_bag(tmp_path / 'drive', drive(100), 'sqlite3').glob('*.db3'))
    database = sqlite3.connect(live)
    database.execute('PRAGMA journal_mode = WAL')
    rows = database.execute('SELECT topic_id, timestamp + 10000000000, data FROM messages')
    database.executemany(
        'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)', rows.fetchall()
    )
    database.commit()
    folder = tmp_path / 'killed'
    folder.mkdir()
    for end in ('', '-wal'):
        shutil.copy(f'{live}{end}', folder / f'drive.db3{end}')
    database.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with imported_episode(folder / 'drive.db3', tmp_path / 'out', PNG) as episode:
        assert len(episode) == len(episode.commands) == 200
        print(f'\nshown 9: a bag with a -wal: {len(episode)} frames')
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3', 'none'])
@pytest.mark.parametrize('early_ns', [0, START_NS + 10**18])
def test_messages_without_a_time_are_dropped_and_counted(tmp_path, storage, early_ns):
    """Times of 0, or of another clock before the first message on /clock."""
    sim = [(topic, one, time_ns - START_NS + 10**9) for topic, one, time_ns in drive(200)]
    clock = make('rosgraph_msgs/msg/Clock', make('builtin_interfaces/msg/Time', 1, 0))
    early = [(topic, one, early_ns) for topic, one, _ in drive(1)]
    bag = write_bag(tmp_path / 'drive', [*early, ('/clock', clock, 10**9), *sim], storage)
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert len(episode) == len(episode.commands) == 200
        assert events(episode, 'drop') == [f'1 frames: {WITHOUT_TIME}']
        assert events(episode, 'problem') == [f'1 commands: {WITHOUT_TIME}']
        duration_s = episode.health['duration_s']
        print(f'\nshown 9: times of 0: dropped, {duration_s:.0f} s are left')
        assert duration_s < 25 and episode.health['drops'] == 1
        assert episode.attributes['created_utc'] == '1970-01-01T00:00:01Z'


def test_a_bag_without_any_time_is_refused(tmp_path):
    """There is nothing to order it by."""
    bag = write_bag(tmp_path / 'drive', [(topic, one, 0) for topic, one, _ in drive()])
    result = import_one(bag, tmp_path / 'out', PNG)
    assert result.status == FAILED and 'none of its messages has a time' in result.reason


def test_what_is_no_ros_2_recording_says_so(tmp_path):
    """Other messages in an MCAP file, none at all, and metadata whose data is elsewhere."""
    one = tmp_path / 'one.mcap'
    for content, words in (
        (mcap(profile=''), "got profile ''"),
        (
            mcap(
                channel(1, '/camera', 'foxglove.RawImage', encoding='protobuf'),
                message(1, START_NS, b'x'),
                profile='',
            ),
            'its messages are not of ROS; got protobuf',
        ),
        (b'nothing at all', 'it is not an MCAP file'),
    ):
        one.write_bytes(content)
        assert words in import_one(one, tmp_path / 'out', PNG).reason
    bag = write_bag(tmp_path / 'drive', drive())
    next(bag.glob('*.mcap')).unlink()
    assert 'got no drive.mcap beside' in import_one(bag, tmp_path / 'out', PNG).reason
    (bag / 'metadata.yaml').write_text('[' * 2_000)
    assert 'the bag is broken' in import_one(bag, tmp_path / 'out', PNG).reason


@pytest.mark.parametrize('compression', ['none', 'lz4'])
def test_a_ros_1_bag_is_read_up_to_a_cut_and_without_its_index(tmp_path, compression):
    """As a recorder leaves it that was killed; its odometry becomes that of ROS 2."""
    moved = odometry(START_NS, (0.25, 0.0, 0.0), 1.0)
    messages = drive(30, image_of=lambda index, ns: image(pixels_of(index, (240, 180)), ns))
    messages += [('/odom', moved, time_ns) for _, _, time_ns in messages[::2]]
    messages.sort(key=lambda one: one[2])
    bag = write_bag(tmp_path / 'drive', messages, compression)
    whole = bag.read_bytes()
    options = ImportOptions('go', image_format='png', extra_topics=('/odom',))
    with imported_episode(bag, tmp_path / 'whole', options) as episode:
        assert len(episode) == len(episode.commands) == 30
        kept = episode.messages('/odom')
        assert [*kept] == [STORE.serialize_cdr(moved, moved.__msgtype__)] * 30
        assert episode.topics['/odom'].definition
        assert not events(episode, 'problem')
    index = whole.index(b'index_pos=') + len(b'index_pos=')
    place = struct.unpack_from('<Q', whole, index)[0]
    unclosed = bytearray(whole[:place])
    unclosed[index : index + 8] = bytes(8)
    bag.write_bytes(unclosed)
    with imported_episode(bag, tmp_path / 'unclosed', options) as episode:
        assert len(episode) == len(episode.commands) == 30
        assert 'it is cut short' in events(episode, 'problem')[0]
    bag.write_bytes(whole[: len(whole) // 2])
    with imported_episode(bag, tmp_path / 'cut', options) as episode:
        last = len(episode) - 1
        assert 6 <= last < 16
        assert np.array_equal(episode.frame(last).image, pixels_of(last, (240, 180)))


def test_a_damaged_connection_of_a_ros_1_bag_is_left_out(tmp_path):
    """The others are read, and the episode says so."""
    messages = [*drive(), ('/odom', odometry(START_NS, (0.25, 0.0, 0.0), 1.0), START_NS)]
    bag = write_bag(tmp_path / 'drive', messages, 'none')
    bag.write_bytes(bag.read_bytes().replace(b'type=nav_msgs', b'tipe=nav_msgs'))
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert len(episode) == len(episode.commands) == 12
        assert 'a connection is damaged' in events(episode, 'problem')[0]


def test_a_long_definition_of_a_ros_1_bag_is_read(tmp_path):
    """The type of its connection may come behind it."""

    def fields(**values):
        pairs = [name.encode() + b'=' + value for name, value in values.items()]
        data = b''.join(struct.pack('<I', len(one)) + one for one in pairs)
        return struct.pack('<I', len(data)) + data

    head = fields(op=b'\x07', conn=bytes(4), topic=b'/odom')
    data = fields(message_definition=b'x' * 100_000, type=b'nav_msgs/Odometry')
    (tmp_path / 'a.bag').write_bytes(MAGIC + head + data)
    assert {one.name for one in Ros1File(tmp_path / 'a.bag').silent} == {'/odom'}


def test_a_full_disk_stops_the_decompression_of_a_file(tmp_path, monkeypatch):
    """Before it is full."""
    monkeypatch.setattr(bag_files, 'MIN_FREE_BYTES', 1 << 62)
    bag = write_bag(tmp_path / 'drive', drive())
    whole = tmp_path / 'drive.mcap.zstd'
    whole.write_bytes(zstd.compress(next(bag.glob('*.mcap')).read_bytes()))
    assert 'the disk has no room' in import_one(whole, tmp_path / 'out', PNG).reason


def test_a_hostile_ros_1_bag_is_refused_in_a_sentence(tmp_path):
    """Sizes that are lies, another compression, changed bytes: never another exception."""
    bag = write_bag(tmp_path / 'drive', drive(), 'none')
    whole = bag.read_bytes()
    size = whole.index(b'size=') + len(b'size=')
    for content, words in (
        (b'#ROSBAG V1.2\n' + whole[13:], 'it is not a ROS 1 bag of version 2.0'),
        (whole[:size] + b'\xff' * 4 + whole[size + 4 :], 'a chunk is too large'),
        (whole[:size] + b'\x01\0\0\0' + whole[size + 4 :], 'a chunk is larger than it says'),
        (whole.replace(b'compression=none', b'compression=xyz0'), 'unknown compression'),
        (whole[:13], 'no topic of images'),
    ):
        bag.write_bytes(content)
        reason = import_one(bag, tmp_path / 'out', PNG).reason
        assert words in reason and '\n' not in reason, reason
    rng = np.random.default_rng(0)
    for _ in range(25):
        changed = bytearray(whole)
        for place in rng.integers(13, len(whole), 8):
            changed[place] = rng.integers(256)
        bag.write_bytes(changed)
        result = import_one(bag, tmp_path / 'out', PNG)
        assert result.status in (IMPORTED, FAILED, 'skipped')
        for one in (tmp_path / 'out').glob('*.h5'):
            one.unlink()
