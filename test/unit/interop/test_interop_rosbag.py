"""Bags become episodes: both storages, all message types, and broken bags."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from backports import zstd

import sparse_episodes
from bags import (
    DELAY_NS,
    PERIOD_NS,
    PNG,
    START_NS,
    STORE,
    compressed,
    drive,
    header,
    image,
    import_one,
    imported_episode,
    make,
    pixels_of,
    twist,
    twist_stamped,
    write_bag,
)
from damaged_files import cut_in_half
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.interop.export import export
from mobile_vla_ros.interop.imports import FAILED, IMPORTED
from mobile_vla_ros.interop.source import ImportOptions
from small_episodes import write_rows


def jpeg(index: int, stamp_ns: int):
    """Return a CompressedImage of the image with that index."""
    return compressed(encode(pixels_of(index)), stamp_ns)


def stamped(index: int, stamp_ns: int):
    """Return a TwistStamped whose vx grows with the index, stamped half a period late."""
    return twist_stamped(stamp_ns + PERIOD_NS // 2, 0.1 + index / 100, -0.2, 0.3)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3', 'none', 'bz2', 'lz4'])
def test_raw_images_and_twists(tmp_path, storage):
    """Every image and command: pixels, header stamp, and the bag's time as receipt time."""
    bag = write_bag(tmp_path / 'drive', drive(), storage)
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert len(episode) == len(episode.commands) == 12
        due = START_NS + np.arange(12) * PERIOD_NS
        assert episode.frame_stamp_ns.tolist() == due.tolist()
        assert episode.frame_received_ns.tolist() == (due + DELAY_NS).tolist()
        assert all(np.array_equal(episode.frame(i).image, pixels_of(i)) for i in range(12))
        assert episode.commands.received_ns.tolist() == (due + DELAY_NS + 1).tolist()
        assert np.array_equal(episode.commands.stamp_ns, episode.commands.received_ns)
        assert np.allclose(episode.commands.twist[:, 0], 0.1 + np.arange(12) / 100)
        assert not episode.commands.twist[:, 1:].any()
        attributes = episode.attributes
        assert (
            attributes['image_topic'],
            attributes['command_topic'],
            attributes['command_type'],
            attributes['frame_id'],
        ) == ('/camera/image_raw', '/cmd_vel', 'geometry_msgs/msg/Twist', 'eye')
        assert episode.instruction == 'go to the red box' and episode.complete
        assert attributes['origin'].startswith(f'{bag.name}#')
        assert attributes['created_utc'] == '2023-11-14T22:13:20Z'


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3', 'none'])
def test_compressed_images_and_stamped_twists(tmp_path, storage):
    """Compressed images are kept byte for byte; a command keeps its stamp."""
    bag = write_bag(tmp_path / 'drive', drive(image_of=jpeg, command_of=stamped), storage)
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert all(episode.encoded(i) == encode(pixels_of(i)) for i in range(12))
        due = START_NS + np.arange(12) * PERIOD_NS
        assert episode.commands.stamp_ns.tolist() == (due + PERIOD_NS // 2).tolist()
        assert episode.commands.received_ns.tolist() == (due + DELAY_NS + 1).tolist()
        assert np.allclose(episode.commands.twist[3], [0.13, -0.2, 0, 0, 0, 0.3])
        assert episode.attributes['command_type'] == 'geometry_msgs/msg/TwistStamped'


@pytest.mark.parametrize(('storage', 'suffix'), [('mcap', '.mcap'), ('sqlite3', '.db3')])
def test_a_storage_file_alone_is_a_bag(tmp_path, storage, suffix):
    """Without the metadata of its folder; compressed as a whole as well."""
    folder = write_bag(tmp_path / 'drive', drive(), storage)
    bare = next(folder.glob(f'*{suffix}')).rename(tmp_path / f'bare{suffix}')
    squeezed = tmp_path / f'bare{suffix}.zstd'
    squeezed.write_bytes(zstd.compress(bare.read_bytes()))
    for one in (bare, squeezed):
        with imported_episode(one, tmp_path / one.suffix, PNG) as episode:
            assert len(episode) == len(episode.commands) == 12
            assert np.array_equal(episode.frame(11).image, pixels_of(11))
    squeezed.write_bytes(squeezed.read_bytes()[:2000])
    assert import_one(squeezed, tmp_path / 'cut', PNG).status == FAILED


def test_one_of_two_topics_must_be_chosen(tmp_path):
    """Two cameras: the sentence names both; either can be chosen."""
    messages = drive() + [
        ('/rear/image', image(pixels_of(100 + i), ns), ns)
        for i, ns in enumerate(range(START_NS, START_NS + 12 * PERIOD_NS, PERIOD_NS))
    ]
    bag = write_bag(tmp_path / 'drive', sorted(messages, key=lambda one: one[2]))
    outcome = import_one(bag, tmp_path / 'out', PNG)
    assert outcome.status == FAILED
    assert 'more than one topic of images' in outcome.reason
    assert '/camera/image_raw (sensor_msgs/msg/Image), /rear/image' in outcome.reason
    assert '--image-topic' in outcome.reason
    rear = ImportOptions('go', image_format='png', image_topic='/rear/image')
    with imported_episode(bag, tmp_path / 'out', rear) as episode:
        assert np.array_equal(episode.frame(0).image, pixels_of(100))
    wrong = import_one(bag, tmp_path / 'other', ImportOptions('go', image_topic='/front'))
    assert 'no images on /front' in wrong.reason and '/rear/image' in wrong.reason


@pytest.mark.parametrize(
    ('missing', 'sentence'),
    [('/cmd_vel', 'no topic of commands'), ('/camera/image_raw', 'no topic of images')],
)
def test_bag_without_a_stream_is_refused(tmp_path, missing, sentence):
    """No camera or no command: the sentence lists the topics of the bag."""
    bag = write_bag(tmp_path / 'drive', [one for one in drive() if one[0] != missing])
    outcome = import_one(bag, tmp_path / 'out', PNG)
    assert outcome.status == FAILED and sentence in outcome.reason
    assert not list((tmp_path / 'out').iterdir())


def test_the_instruction_of_the_bag_comes_first(tmp_path):
    """A String on the topic instruction overrides the option."""
    text = make('std_msgs/msg/String', 'follow the wall')
    bag = write_bag(tmp_path / 'drive', [('/robot/instruction', text, START_NS), *drive()])
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert episode.instruction == 'follow the wall'
    silent = write_bag(tmp_path / 'silent', drive())
    assert (
        'give --instruction'
        in import_one(silent, tmp_path / 'out', ImportOptions()).reason.lower()
    )


def test_an_unusable_frame_is_dropped_and_counted(tmp_path):
    """Another size, a wrong size, a broken JPEG: the frame is dropped with a reason."""

    def some(index, stamp_ns):
        if index == 3:
            return image(pixels_of(3, (16, 8)), stamp_ns)
        return image(pixels_of(index), stamp_ns, **({'height': 500} if index == 5 else {}))

    bag = write_bag(tmp_path / 'raw', drive(100, image_of=some))
    with imported_episode(bag, tmp_path / 'o', PNG) as episode:
        drops = [event.text for event in episode.events if event.name == 'drop']
        assert len(episode) == 98 and len(drops) == episode.health['drops'] == 2
        assert drops[0].startswith('1 frame: an image differs in size from the first; got 16x8')
        assert 'does not fit its data' in drops[1]

    def broken(index, stamp_ns):
        data = encode(pixels_of(index))
        return compressed(data[:20] if index == 4 else data, stamp_ns)

    bag = write_bag(tmp_path / 'jpeg', drive(100, image_of=broken))
    with imported_episode(bag, tmp_path / 'o', PNG) as episode:
        assert len(episode) == 99 and episode.health['drops'] == 1


def test_bag_of_an_unknown_encoding_is_refused(tmp_path):
    """No image is usable: the episode is refused with the first reason, and nothing is left."""
    bag = write_bag(
        tmp_path / 'drive', drive(image_of=lambda i, ns: image(pixels_of(i), ns, encoding='bgr10'))
    )
    outcome = import_one(bag, tmp_path / 'out', PNG)
    assert outcome.status == FAILED and "unknown encoding; got 'bgr10'" in outcome.reason
    assert not list((tmp_path / 'out').iterdir())


def test_command_that_is_not_finite_is_left_out(tmp_path):
    """NaN never reaches an episode; an event reports it."""
    bag = write_bag(
        tmp_path / 'drive', drive(command_of=lambda i, _: twist(float('nan') if i == 2 else 0.3))
    )
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        assert len(episode.commands) == 11 and np.isfinite(episode.commands.twist).all()
        assert [event.text for event in episode.events if event.name == 'problem'] == [
            'a command was not finite and was left out'
        ]


def test_a_teleop_of_key_presses_is_no_idle_episode(tmp_path, capsys):
    """One command, and the images move on: the base holds, and the import says so."""
    noise = np.random.default_rng(0)
    texture = sparse_episodes.floor()
    messages = drive(
        60,
        image_of=lambda i, ns: compressed(sparse_episodes.image(texture, 2 * i, noise), ns),
        command_of=lambda *_: twist(0.3, 0.0, 0.1),
    )
    commands = [message for message in messages if message[0] == '/cmd_vel']
    bag = write_bag(tmp_path / 'keys', [m for m in messages if m not in commands[1:]])
    words = ['episodes', 'import', str(bag), '--instruction', 'go', '--out']
    assert main([*words, str(tmp_path / 'images')]) == 0
    told = capsys.readouterr().out
    assert 'holds the last command (by the images)' in told and '% of the driven time' in told
    assert main([*words, str(tmp_path / 'flag'), '--base_command_timeout_s', '2']) == 0
    assert 'stops 2 s after a command (as recorded)' in capsys.readouterr().out
    idle = []
    for folder in ('images', 'flag'):
        with Episode.open(next((tmp_path / folder).glob('*.h5'))) as episode:
            idle.append(round(episode.health['idle_share'], 2))
    assert idle == [0.02, 0.67]  # the first frame came before the first command


@pytest.mark.parametrize(
    ('storage', 'spoil'),
    [
        ('sqlite3', lambda folder: cut_in_half(next(folder.glob('*.db3')))),
        ('sqlite3', lambda folder: next(folder.glob('*.db3')).write_bytes(b'')),
        ('mcap', lambda folder: (folder / 'metadata.yaml').write_text('version: [')),
        ('mcap', lambda folder: (folder / 'metadata.yaml').write_text('- 1')),
    ],
    ids=['cut sqlite3', 'empty sqlite3', 'bad yaml', 'other yaml'],
)
def test_a_broken_bag_is_refused(tmp_path, storage, spoil):
    """The import of a broken bag fails with one sentence and leaves nothing."""
    bag = write_bag(tmp_path / 'drive', drive(60), storage)
    spoil(bag)
    outcome = import_one(bag, tmp_path / 'out', PNG)
    assert outcome.status == FAILED and 'the bag is broken' in outcome.reason
    assert '\n' not in outcome.reason
    assert not list((tmp_path / 'out').iterdir())


def test_an_exported_episode_is_imported_unchanged(tmp_path):
    """After `episodes export` and import: the same images, times and commands."""
    bag = write_bag(tmp_path / 'drive', drive(image_of=jpeg, command_of=stamped))
    with imported_episode(bag, tmp_path / 'out', PNG) as first:
        (tmp_path / 'bags').mkdir()
        exported = export(first.path, tmp_path / 'bags', 'rosbag2')['path']
        with imported_episode(Path(exported), tmp_path / 'again', ImportOptions()) as second:
            assert second.instruction == first.instruction
            assert all(first.encoded(i) == second.encoded(i) for i in range(12))
            assert np.array_equal(first.frame_stamp_ns, second.frame_stamp_ns)
            assert np.array_equal(first.frame_received_ns, second.frame_received_ns)
            for name in ('twist', 'stamp_ns', 'received_ns'):
                assert np.array_equal(
                    getattr(first.commands, name), getattr(second.commands, name)
                )


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_a_compressed_bayer_image_is_interpolated(tmp_path, kind):
    """Its bytes are grey; only its format names the pattern. One that was converted is not."""
    form = f'bayer_rggb8; {kind} compressed '

    def mosaic(index, ns):
        red = np.zeros((24, 32), np.uint8)
        red[::2, ::2] = 240 - 5 * index  # the red places of RGGB
        grey = cv2.imencode('.jpg' if kind == 'jpeg' else '.png', red)[1].tobytes()
        return compressed(grey, ns, form)

    with imported_episode(
        write_bag(tmp_path / 'bayer', drive(image_of=mosaic)), tmp_path / 'out', PNG
    ) as episode:
        r, g, b = episode.frame(0).image.reshape(-1, 3).mean(0)
        assert r > 200 and g < 30 and b < 30
    colours = encode(pixels_of(1), kind)
    converted = compressed(colours, START_NS, f'bayer_rggb8; {kind} compressed bgr8')
    assert images.stored_bytes(converted) == colours


def test_colours_without_a_name_are_named_by_the_user(tmp_path):
    """8UC3 is what OpenCV calls three bytes a pixel, of any colours."""
    bag = write_bag(
        tmp_path / 'drive',
        drive(image_of=lambda i, ns: image(pixels_of(i)[..., ::-1], ns, encoding='8UC3')),
    )
    assert '--encoding' in import_one(bag, tmp_path / 'out', PNG).reason
    wrong = ImportOptions('go', encoding='mono8')  # of one byte a pixel
    assert "got '8UC3'" in import_one(bag, tmp_path / 'out', wrong).reason
    named = ImportOptions('go', image_format='png', encoding='bgr8')
    with imported_episode(bag, tmp_path / 'out', named) as episode:
        assert np.array_equal(episode.frame(3).image, pixels_of(3))
    known = write_bag(tmp_path / 'known', drive())
    with imported_episode(known, tmp_path / 'out', named) as episode:
        assert np.array_equal(episode.frame(3).image, pixels_of(3))
    with pytest.raises(UserError, match='unknown encoding'):
        ImportOptions('go', encoding='purple')


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_named_topics_are_kept_as_they_are(tmp_path, storage):
    """With bytes, type, definition and stamps; a name that is not in the bag is said."""
    kind, stamps_ns = 'geometry_msgs/msg/Vector3Stamped', [10**18 + row for row in range(12)]
    speeds = [
        make(kind, header(stamp_ns), make('geometry_msgs/msg/Vector3', 1.0, 2.0, 3.0))
        for stamp_ns in stamps_ns
    ]
    times_ns = [time_ns + 3 for topic, _, time_ns in drive() if topic == '/cmd_vel']
    messages = [('/speed', one, at_ns) for one, at_ns in zip(speeds, times_ns, strict=True)]
    words = ('/words', make('std_msgs/msg/String', 'hello'), times_ns[0])
    bag = write_bag(tmp_path / 'bag', [*drive(), *messages, words], storage)
    wanted = ('/speed', '/words', '/scan', '/cmd_vel')
    outcome = import_one(bag, tmp_path / 'out', ImportOptions('go', extra_topics=wanted))
    assert outcome.status == IMPORTED, outcome.reason
    notes = ' '.join(outcome.notes)
    assert '/scan is not kept as it is: got no message of it' in notes
    assert '/cmd_vel is not kept as it is: its messages become the episode' in notes
    assert 'not imported' not in notes
    with Episode.open(outcome.path) as episode:
        assert set(episode.topics) == {'/speed', '/words'}
        kept, channel = episode.messages('/speed'), episode.topics['/speed']
        assert [*kept] == [STORE.serialize_cdr(one, kind) for one in speeds]
        assert (kept.received_ns.tolist(), kept.stamp_ns.tolist()) == (times_ns, stamps_ns)
        assert (channel.type, channel.definition) == (
            kind,
            STORE.generate_msgdef(kind, ros_version=2)[0],
        )
        assert episode.messages('/words').stamp_ns.tolist() == [times_ns[0]]


def test_a_topic_of_an_unknown_type_keeps_its_definition(tmp_path):
    """From an MCAP; one that an episode was exported to is imported with all of it."""
    writer = EpisodeWriter(tmp_path / 'first', EpisodeInfo('go'), START_NS, messages=True)
    odd = Channel('/odd', 'robot_msgs/msg/Odd', '# a comment\nstd_msgs/Header header\n' * 400)
    write_rows(writer, 10)
    for row in range(10):
        writer.add_message(odd, bytes([0, 1, 0, 0, 9, 0, 0, 0, row, 0, 0, 0, 7]), 1, 10**17 + row)
    exported = export(writer.close(), tmp_path, 'rosbag2')['path']
    options = ImportOptions(extra_topics=('/odd',))
    with imported_episode(Path(exported), tmp_path / 'out', options) as episode:
        assert episode.topics == {'/odd': odd}
        messages = episode.messages('/odd')
        assert messages.stamp_ns.tolist() == [9 * 10**9 + row for row in range(10)]
        assert messages[3][8:] == bytes([3, 0, 0, 0, 7])
