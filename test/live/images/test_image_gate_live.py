"""The worst of the mutated images, sent to a live recorder and a live inference node."""

import time
import zlib
from functools import partial

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from driven import OK, Drive
from mobile_vla_ros.episode.catalog.inspect import check
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import dropped_frames
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.images.compressed import encode, stored_compressed
from mobile_vla_ros.images.stored import BrokenImage, check_whole, decode
from mobile_vla_ros.nodes.recorder.current_episode import kind
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mutated_images import OTHERS, base_images, garbled_length, mutants, with_chunk
from ros_helpers import status_values, wait_for_status, wait_until

CAMERA, COMPRESSED = 'camera/image_raw', 'camera/image_raw/compressed'
BASES = base_images()
WORST = 80
SEND_S = 0.01


def fails(read, *arguments) -> bool:
    """Whether an image is refused."""
    try:
        read(*arguments)
    except UserError:
        return True
    return False


def worst(name: str) -> list[bytes]:
    """Return broken images: each way to fail of a base once, then others, then other formats."""
    found: dict[str, bytes] = {}
    others = []
    for encoded in mutants(BASES[name], 4 * WORST, seed=2):
        try:
            decode(encoded)
        except BrokenImage as error:
            if error.reason not in found:
                found[error.reason] = encoded
            else:
                others.append(encoded)
    text = with_chunk(BASES['png'], b'zTXt', b'key\0\0' + zlib.compress(bytes(5_000_000)))
    made = [text, garbled_length(BASES['png']), b'', *OTHERS, *found.values(), *others]
    return made[:WORST]


def lies() -> list[Image]:
    """Return raw images whose claims do not fit their data, beside 8x6 rgb8."""
    good = {'width': 8, 'height': 6, 'step': 24, 'encoding': 'rgb8', 'data': bytes([90] * 144)}
    changes = [
        {'data': b''},
        {'data': bytes(143)},
        {'step': 0},
        {'step': 2**32 - 1},
        {'width': 2**32 - 1, 'height': 2**32 - 1},
        {'width': 0, 'height': 0},
        {'encoding': ''},
        {'encoding': 'rgba16'},
        {'encoding': 'yuv422', 'width': 5},
        {'width': 70_000, 'height': 1, 'step': 70_000, 'encoding': 'mono8', 'data': bytes(70_000)},
    ]
    return [Image(**{**good, **change}) for change in changes] * 5


@pytest.mark.parametrize('name', ['jpeg', 'png', 'raw'])
def test_the_recorder_outlives_the_worst_images_and_counts_them(nodes, client, tmp_path, name):
    """Each good image among them is in the file, each other one is a drop, and check agrees."""
    pixels = np.full((6, 8, 3), 90, np.uint8)
    if name == 'raw':
        topic, bad, good = CAMERA, lies(), partial(from_rgb, pixels)
    else:
        topic, bad = COMPRESSED, [to_compressed(encoded) for encoded in worst(name)]
        good = partial(to_compressed, BASES[name])
    expected = 0
    for message in bad:
        encode = images.encode_message if name == 'raw' else stored_compressed
        expected += 1 + (kind(message) == kind(good()) and not fails(encode, message))
    status = client.subscribe('recorder/status', DiagnosticStatus)
    process = nodes.start(
        'recorder_node',
        params={
            'data_dir': str(tmp_path / 'episodes'),
            'instruction': 'go',
            'image_transport': 'raw' if name == 'raw' else 'compressed',
        },
    )
    client.publish(topic, good(stamp=client.now()), qos_profile_sensor_data)
    publisher = client.publisher(topic, type(good()), qos_profile_sensor_data)

    def started():
        publisher.publish(good(stamp=client.now()))
        return client.call('recorder/start').success

    wait_until(started, what='an episode', detail=lambda: process.output)
    for message in bad:
        for sent in (message, good()):
            sent.header.stamp = client.now()
            publisher.publish(sent)
            time.sleep(SEND_S)
    made = []

    def one_more():  # the recorder notices by a later image that one was lost on the way
        made.append(good(stamp=client.now()))
        return made[-1]

    with client.stream(topic, one_more, 10, qos_profile_sensor_data):
        wait_for_status(
            status,
            lambda state, values: (
                state == 'recording'
                and int(values['frames']) + int(values['drops']) >= 2 * len(bad)
            ),
            what=f'{2 * len(bad)} images counted',
            detail=lambda: f'{status_values(status.last)}\n{process.output}',
        )
    answer = client.call('recorder/stop')
    assert answer.success, answer.message
    assert process.running and 'Traceback' not in process.output
    (path,) = find_episodes(tmp_path / 'episodes')
    with Episode.open(path) as episode:
        drops = [event.text for event in episode.events if event.name == 'drop']
        lost = sum(dropped_frames(text) for text in drops if ' lost ' in text)
        frames, health = len(episode), episode.health
        seconds = (episode.frame_received_ns[-1] - episode.frame_received_ns[0]) / 1e9
    # Before the first of them, one image of the start may be recorded.
    assert 2 * len(bad) <= frames + health['drops'] <= 2 * len(bad) + len(made) + 1
    assert expected - lost <= frames <= expected + len(made) + 1
    kinds = {text.partition(': ')[2] for text in drops}
    assert len(drops) <= len(kinds) * (seconds + 2), 'one a second of each reason'
    if health['broken'] or name == 'raw':
        assert check(path)['verdict'] == health['verdict']


def test_inference_outlives_the_worst_images_and_counts_them(nodes, client, small_run):
    """It proposes before and after them, and names each as unreadable."""
    bad = worst('jpeg') + worst('png')
    # These are unreadable without decoding; of the others only those that are due are decoded.
    always = sum(fails(check_whole, encoded) for encoded in bad)
    good = encode(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    drive = Drive(client)
    process = nodes.start(
        'inference_node',
        params={
            'policy': str(small_run / 'best'),
            'instruction': 'go to the red box',
            'image_transport': 'compressed',
        },
    )

    def stream():
        return client.stream(
            COMPRESSED,
            lambda: to_compressed(good, stamp=client.now()),
            10,
            qos_profile_sensor_data,
        )

    publisher = client.publisher(COMPRESSED, CompressedImage, qos_profile_sensor_data)
    wait_until(publisher.get_subscription_count, 120, 'the node', lambda: process.output)
    with stream():
        drive.until(OK, timeout_s=60)
        for encoded in bad:
            publisher.publish(to_compressed(encoded, stamp=client.now()))
            time.sleep(2 * SEND_S)
        drive.until(OK, timeout_s=60)
        seen = len(drive.proposals)
        wait_until(lambda: len(drive.proposals) > seen + 10, what='proposals after them')
        seen = len(drive.reports)
        wait_until(lambda: len(drive.reports) > seen + 1, what='a report after them')
    assert process.running and 'Traceback' not in process.output
    counted = int(status_values(drive.reports.last.status[0])['unreadable_images'])
    # Best effort: a busy machine may lose a few.
    assert always / 2 <= counted <= len(bad), (counted, always)
