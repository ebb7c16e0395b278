"""One gate for images: what is no whole JPEG or PNG within the limits costs only itself."""

import io
import struct
import time
import zlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sensor_msgs.msg import Image as ImageMessage

from mobile_vla_ros.episode.catalog.coverage import start_view
from mobile_vla_ros.episode.catalog.inspect import check, judge_episode
from mobile_vla_ros.episode.quality.image_quality import measure
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.images import stored
from mobile_vla_ros.images.compressed import encode, stored_compressed
from mobile_vla_ros.images.stored import BrokenImage, check_whole, decode
from mobile_vla_ros.nodes.inference.camera import CameraGate
from mobile_vla_ros.nodes.recorder.current_episode import CurrentEpisode
from mobile_vla_ros.nodes.recorder.open_episode import BROKEN, kind
from mobile_vla_ros.runtime.camera_check import CameraCheck
from mobile_vla_ros.types import Command
from mutated_images import (
    OTHERS,
    PNG_START,
    base_images,
    chunk,
    garbled_length,
    mutants,
    with_chunk,
)
from ros_helpers import wait_until
from small_episodes import CREATED_NS

SECOND = 1_000_000_000
BASES = base_images()
TOO_MUCH_TEXT = with_chunk(BASES['png'], b'zTXt', b'key\0\0' + zlib.compress(bytes(5_000_000)))
# Mutants of each base: 2,000 in all, or 20,000.
SOME, MANY = 2_000 // len(BASES), 20_000 // len(BASES)


def message(encoded: bytes, stamp_ns: int = 0) -> SimpleNamespace:
    """Return a compressed camera message; making a real one takes longer than decoding it."""
    stamp = SimpleNamespace(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return SimpleNamespace(
        data=encoded, format='jpeg', header=SimpleNamespace(stamp=stamp, frame_id='')
    )


def recorder(folder) -> CurrentEpisode:
    """Return the recorder's part that receives camera messages, with room for all of them."""
    params = SimpleNamespace(
        flush_period_s=0.5, queue_bytes=2**40, queue_frames=2**20, ring_s=0.0, messages=False
    )
    place = SimpleNamespace(
        path=folder,
        disk=SimpleNamespace(check_space=lambda: None, floor_bytes=0),
        changed=lambda: None,
    )
    return CurrentEpisode(params, place, stored_compressed, time.time_ns, time.monotonic_ns)


def inference() -> CameraGate:
    """Return the part of inference that receives camera messages."""
    return CameraGate(CameraCheck(10.0), SimpleNamespace(moving_s=0.0), 56, real_time=True)


@pytest.mark.parametrize('encoded', OTHERS)
def test_no_other_format_is_opened(encoded, monkeypatch):
    """PostScript would start Ghostscript; whoever reads an image goes through the gate."""
    monkeypatch.setattr('subprocess.Popen', lambda *_, **__: pytest.fail('a program was started'))
    for read in (decode, check_whole, stored.read_header, measure, start_view):
        with pytest.raises(BrokenImage, match='unknown image format'):
            read(encoded)


@pytest.mark.parametrize(
    'encoded',
    [
        pytest.param(garbled_length(BASES['png']), id='SyntaxError'),
        pytest.param(TOO_MUCH_TEXT, id='ValueError'),
        pytest.param(BASES['png'][:-12], id='without its end'),
        pytest.param(BASES['jpeg'][:-1], id='cut by one byte'),
        pytest.param(BASES['jpeg'][: len(BASES['jpeg']) // 2], id='half'),
        pytest.param(PNG_START + chunk(b'IHDR', b'\0'), id='struct.error or IndexError'),
    ],
)
def test_a_garbled_image_costs_only_itself(tmp_path, encoded):
    """Recorder, inference and the readers of episodes refuse it with a sentence, and go on."""
    for read in (decode, partial(decode, min_side=56), check_whole, measure, start_view):
        with pytest.raises(BrokenImage, match=r'^an image is broken; got .+; expected'):
            read(encoded)
    good = BASES['png' if encoded.startswith(PNG_START) else 'jpeg']
    episode, gate = recorder(tmp_path), inference()
    episode.begin(episode.open(message(good), EpisodeInfo('go'), None))
    for number in range(30):
        now_ns = CREATED_NS + number * SECOND // 10
        sent = message(encoded if number % 2 else good, now_ns)
        episode.frame(sent, now_ns, now_ns, now_ns, 0)
        assert (gate.pass_on(sent, now_ns, now_ns) is None) == (number > 0)
        wait_until(lambda: not episode.recording.queued)
    assert gate.unreadable == 15
    recording = episode.recording
    recording.finish('success')
    assert recording.join(20) and recording.error is None
    assert (recording.frames, recording.drops) == (15, 15)
    with Episode.open(recording.path) as file:
        drops = [event for event in file.events if event.name == 'drop']
        assert 0 < len(drops) <= 4, 'one a second'
        assert file.health['drops'] == 15 and judge_episode(file) == file.health


def test_a_cut_image_makes_the_live_verdict_bad_as_it_does_that_of_check(tmp_path):
    """Also where it is none of those that are decoded meanwhile, about one a second."""
    for frames, expected in (({}, 'good'), ({3, 17}, 'bad')):
        writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
        rng = np.random.default_rng(0)
        for number in range(30):
            now_ns = CREATED_NS + number * SECOND // 10
            pixels = np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), 'u1'))
            encoded = encode(pixels)
            writer.add_frame(encoded[:-1] if number in frames else encoded, now_ns, now_ns)
            writer.add_command(Command([0.1, 0, 0, 0, 0, 0], now_ns, now_ns, 'teleop'))
        path = writer.close('success')
        assert (writer.health['verdict'], check(path)['verdict']) == (expected, expected)
        assert writer.health['broken'] == len(frames)
        with Episode.open(path) as episode:
            assert judge_episode(episode) == writer.health
    assert '2 of 30 images are broken' in writer.health['reasons']


def test_sizes_are_bounded_before_anything_is_decoded(monkeypatch):
    """By what the header claims, of stored and of raw images, and by the bytes."""

    def claims(width: int, height: int) -> bytes:
        return PNG_START + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))

    monkeypatch.setattr(Image.Image, 'load', lambda _: pytest.fail('decoded'))
    for width, height in ((8001, 8000), (65_501, 1), (1, 65_501), (9600, 9600), (2**31, 2**31)):
        for read in (decode, check_whole, stored.read_header, measure):
            with pytest.raises(BrokenImage):
                read(claims(width, height) + chunk(b'IDAT', b'') + chunk(b'IEND', b''))
    with pytest.raises(BrokenImage, match='64 MB'):
        decode(BASES['png'] + bytes(stored.MAX_BYTES))
    for width, height in ((65_501, 1), (2**32 - 1, 2**32 - 1)):
        raw = SimpleNamespace(
            width=width, height=height, step=width, encoding='mono8', data=bytes(65_501)
        )
        for read in (images.to_rgb, images.encode_message, images.check):
            with pytest.raises(UserError, match='at most 64 megapixels and 65500 pixels a side'):
                read(raw)


def test_a_padded_jpeg_and_one_with_a_thumbnail_are_judged_by_their_own_end():
    """Cameras pad after the end marker; that of a thumbnail in the header does not count."""
    jpeg = BASES['jpeg']
    thumbnail = b'\xff\xe1' + struct.pack('>H', len(BASES['grey jpeg']) + 2) + BASES['grey jpeg']
    for whole in (jpeg + bytes(9), jpeg + b'junk', jpeg[:2] + thumbnail + jpeg[2:]):
        assert check_whole(whole) == (64, 48, 'JPEG')
        assert decode(whole).shape == (48, 64, 3)
        assert stored.has_end(whole) and not stored.has_end(whole[: whole.rindex(b'\xff\xd9')])
        with pytest.raises(BrokenImage, match='a JPEG without its end'):
            check_whole(whole[: whole.rindex(b'\xff\xd9')])


@pytest.mark.parametrize(
    'change',
    [
        {'data': b''},
        {'step': 0},
        {'step': 2**32 - 1},
        {'width': 2**32 - 1},
        {'height': 2**32 - 1},
        {'width': 0, 'height': 0},
        {'encoding': 'rgba8'},
        {'encoding': ''},
        {'encoding': 'jpeg; or so \u2603'},
        {'encoding': 'yuv422', 'width': 5},
        {'encoding': 'nv12', 'height': 2**31},
    ],
)
def test_a_raw_image_that_lies_costs_only_itself(tmp_path, change):
    """Claims that do not fit the data: counted and named by recorder and inference."""
    good = {'width': 8, 'height': 6, 'step': 24, 'encoding': 'rgb8', 'data': bytes([90] * 144)}
    episode, gate = recorder(tmp_path), inference()
    episode._encode = images.encode_message
    episode.begin(episode.open(ImageMessage(**good), EpisodeInfo('go'), None))
    for number in range(10):
        now_ns = CREATED_NS + number * SECOND // 10
        sent = ImageMessage(**{**good, **(change if number % 2 else {})})
        sent.header.stamp.sec, sent.header.stamp.nanosec = divmod(now_ns, SECOND)
        episode.frame(sent, now_ns, now_ns, now_ns, 0)
        gate.pass_on(sent, now_ns, now_ns)
    assert gate.unreadable == 5
    recording = episode.recording
    recording.finish('success')
    assert recording.join(20) and recording.error is None
    assert (recording.frames, recording.drops) == (5, 5)


def test_an_episode_names_only_so_many_kinds_of_images(tmp_path):
    """A camera that sends another size each time fills neither memory nor file."""
    episode = recorder(tmp_path)
    raw = {'step': 9, 'encoding': 'mono8', 'data': bytes(9 * 500), 'width': 9}
    episode._encode = images.encode_message
    episode.begin(episode.open(SimpleNamespace(height=500, **raw), EpisodeInfo('go'), None))
    for number in range(400):
        now_ns = CREATED_NS + number * SECOND // 100
        episode.frame(SimpleNamespace(height=number + 1, **raw), now_ns, now_ns, now_ns, 0)
    recording = episode.recording
    recording.finish('success')
    assert recording.join(20) and recording.drops == 400
    with Episode.open(recording.path) as file:
        names = [event.name for event in file.events]
        assert names.count('problem') == 50 and names.count('drop') <= 5


@pytest.mark.parametrize('count', [SOME, pytest.param(MANY, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize('name', BASES)
def test_no_mutated_image_ends_anything(tmp_path, name, count):
    """Through decoder, recorder and inference: an array or one sentence, and counts that fit."""
    base, gate, episode = BASES[name], inference(), recorder(tmp_path)
    episode.begin(episode.open(message(base), EpisodeInfo('go'), None))
    refused = unsound = 0
    for number, encoded in enumerate(mutants(base, count, seed=1)):
        now_ns = CREATED_NS + number * SECOND // 10
        sent = message(encoded, now_ns)
        whole, pixels = outcome(check_whole, encoded), outcome(decode, encoded, 56)
        assert whole != 'a JPEG without its end' or not stored.has_end(encoded)
        if isinstance(whole, str):
            assert isinstance(pixels, str), 'the live verdict is good, and that of check bad'
        unsound += isinstance(pixels, str) > isinstance(whole, str)
        refused += isinstance(pixels, str)
        if not isinstance(pixels, str):
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        assert isinstance(outcome(measure, encoded), str) == isinstance(pixels, str)
        counted = gate.unreadable
        passed = gate.pass_on(sent, now_ns, now_ns)
        assert (gate.unreadable > counted) == isinstance(pixels, str)
        assert passed is None or not isinstance(pixels, str)
        assert kind(sent) != BROKEN or isinstance(whole, str)
        episode.frame(sent, now_ns, now_ns, now_ns, 0)
    print(f'{name}: {refused} of {count} refused, {unsound} of them only by the decoder')
    assert count / 4 < refused < count
    recording = episode.recording
    recording.finish('success')
    assert recording.join(60) and recording.error is None
    assert recording.frames + recording.drops == count and recording.frames > 0
    with Episode.open(recording.path) as file:
        assert len(file) == recording.frames and file.health['drops'] == recording.drops
        assert file.health == judge_episode(file)


def outcome(read, *arguments):
    """Return what a function of the gate returns, or the reason for which it refuses."""
    try:
        return read(*arguments)
    except BrokenImage as error:
        assert error.reason and '\n' not in str(error) and ' at 0x' not in str(error)
        return error.reason


def test_what_is_mutated_is_whole():
    """Each base decodes to the pixels that Pillow alone gives it."""
    for base in BASES.values():
        image = Image.open(io.BytesIO(base))
        assert check_whole(base) == (*image.size, image.format)
        assert np.array_equal(decode(base), np.asarray(image.convert('RGB')))
