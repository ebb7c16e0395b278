"""Video topics become frames: each picture at the time of its message, lost ones counted."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from bags import (
    DELAY_NS,
    PERIOD_NS,
    PNG,
    START_NS,
    compressed,
    drive,
    header,
    import_one,
    imported_episode,
    make,
    pixels_of,
    write_bag,
)
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.bags.video import codec_of
from mobile_vla_ros.interop.imports import FAILED
from mobile_vla_ros.interop.source import ImportOptions

av = pytest.importorskip('av')
COUNT, SIZE = 24, (64, 48)
KEY_FRAMES = 8
FRAMES = [
    np.roll(pixels_of(0, (8, 6)).repeat(8, axis=0).repeat(8, axis=1), 2 * row, axis=1)
    for row in range(COUNT)
]


def packets(encoder, **options):
    """Return the frames encoded, one packet each."""
    context = av.CodecContext.create(encoder, 'w')
    context.width, context.height = SIZE
    context.pix_fmt, context.time_base = 'yuv420p', Fraction(1, 10)
    context.gop_size, context.max_b_frames, context.options = KEY_FRAMES, 0, options
    found = []
    for row, pixels in enumerate(FRAMES):
        frame = av.VideoFrame.from_ndarray(pixels, 'rgb24')
        frame.pts = row
        found += context.encode(frame)
    return [bytes(one) for one in (*found, *context.encode())]


H264 = packets('libx264', tune='zerolatency', crf='1')


def decoded(encoded, codec='h264'):
    """Return the pictures of packets as PyAV decodes all of them together."""
    context = av.CodecContext.create(codec, 'r')
    frames = [frame for data in encoded for frame in context.decode(av.Packet(data))]
    return [frame.to_ndarray(format='rgb24') for frame in (*frames, *context.decode(None))]


def compressed_video(data, stamp_ns, kind='h264'):
    """Return a foxglove_msgs/CompressedVideo."""
    stamp = make('builtin_interfaces/msg/Time', *divmod(stamp_ns, 10**9))
    data = np.frombuffer(data, np.uint8)
    return make('foxglove_msgs/msg/CompressedVideo', stamp, 'eye', data, kind)


def packet(data, stamp_ns, kind='libx264;yuv420p;bgr8;bgr8'):
    """Return an FFMPEGPacket."""
    fields = header(stamp_ns), *SIZE, kind, 7, 0, False, np.frombuffer(data, np.uint8)
    return make('ffmpeg_image_transport_msgs/msg/FFMPEGPacket', *fields)


@pytest.mark.parametrize('storage', ['mcap', 'none'])
@pytest.mark.parametrize(
    'message',
    [compressed_video, packet, lambda data, ns: compressed(data, ns, 'h264')],
    ids=['CompressedVideo', 'FFMPEGPacket', 'CompressedImage'],
)
def test_each_message_is_a_frame(tmp_path, storage, message):
    """With its own stamp and receipt, and the pixels that the video has."""
    messages = drive(COUNT, image_of=lambda row, ns: message(H264[row], ns))
    bag = write_bag(tmp_path / 'drive', messages, storage)
    with imported_episode(bag, tmp_path / 'out', PNG) as episode:
        due = START_NS + np.arange(COUNT) * PERIOD_NS
        assert episode.frame_stamp_ns.tolist() == due.tolist()
        assert episode.frame_received_ns.tolist() == (due + DELAY_NS).tolist()
        for row, pixels in enumerate(decoded(H264)):
            assert np.array_equal(episode.frame(row).image, pixels)
            assert np.abs(pixels.astype(int) - FRAMES[row]).mean() < 30  # 4:2:0 of sharp colours
        assert len(episode.commands) == COUNT and episode.attributes['frame_id'] == 'eye'


@pytest.mark.parametrize(
    ('encoder', 'kind', 'options'),
    [
        ('libx265', 'h265', {'x265-params': 'log-level=none:bframes=0', 'tune': 'zerolatency'}),
        ('libvpx-vp9', 'vp9', {'lag-in-frames': '0', 'deadline': 'realtime'}),
    ],
)
def test_other_codecs(tmp_path, encoder, kind, options):
    """Those that Foxglove names."""
    if encoder not in av.codecs_available:
        pytest.skip(f'this PyAV has no {encoder}')
    encoded = packets(encoder, **options)
    messages = drive(COUNT, image_of=lambda row, ns: compressed_video(encoded[row], ns, kind))
    with imported_episode(write_bag(tmp_path / 'drive', messages), tmp_path / 'out', PNG) as one:
        assert len(one) == COUNT
        wanted = decoded(encoded, 'hevc' if kind == 'h265' else kind)
        assert all(np.array_equal(one.frame(row).image, wanted[row]) for row in range(COUNT))


def test_a_recording_that_begins_in_the_middle(tmp_path):
    """Without a key frame, or after a damaged message, pictures would be guesses: counted."""
    encoded = [b'nothing' if row == 13 else one for row, one in enumerate(H264)]
    messages = drive(COUNT, image_of=lambda row, ns: compressed_video(encoded[row], ns))[6:]
    with imported_episode(write_bag(tmp_path / 'drive', messages), tmp_path / 'out', PNG) as one:
        rows = [*range(KEY_FRAMES, 13), *range(2 * KEY_FRAMES, COUNT)]
        assert one.frame_stamp_ns.tolist() == [START_NS + row * PERIOD_NS for row in rows]
        assert one.health['drops'] == 5 + 3
        wanted = decoded(H264)
        for place, row in enumerate(rows):
            assert np.array_equal(one.frame(place).image, wanted[row])
        texts = [event.text for event in one.events if event.name == 'drop']
        assert all('a video message without a picture' in text for text in texts)


def test_images_come_before_a_video_of_them(tmp_path):
    """A bag that was imported by its images goes on so; the video can be named."""
    video = [('/video', compressed_video(H264[i], START_NS), START_NS + i) for i in range(COUNT)]
    bag = write_bag(tmp_path / 'drive', [*video, *drive()])
    with imported_episode(bag, tmp_path / 'out', PNG) as one:
        assert np.array_equal(one.frame(3).image, pixels_of(3))
    named = ImportOptions('go', image_topic='/video')
    assert import_one(bag, tmp_path / 'other', named).health['frames'] == COUNT


def test_an_unknown_codec_is_refused(tmp_path):
    """By its name, and so is a video without a picture."""
    for kind, words in (('mjpeg2000', "got 'mjpeg2000'"), ('h264', 'no key frame')):
        messages = drive(image_of=lambda row, ns: compressed_video(b'x', ns, kind))  # noqa: B023
        outcome = import_one(write_bag(tmp_path / kind, messages), tmp_path / 'out', PNG)
        assert outcome.status == FAILED and words in outcome.reason


def test_a_video_without_pyav_names_it(tmp_path, monkeypatch):
    """It is an extra."""
    bag = write_bag(tmp_path / 'drive', drive(image_of=lambda row, ns: packet(H264[row], ns)))
    monkeypatch.setitem(sys.modules, 'av', None)
    outcome = import_one(bag, tmp_path / 'out', PNG)
    assert outcome.status == FAILED and 'a video needs the library av' in outcome.reason
    assert not list((tmp_path / 'out').iterdir())


def test_images_are_no_videos():
    """JPEG, PNG and mosaics stay images; raw ones have no format."""
    for kind in ('jpeg', 'png', 'bgr8; jpeg compressed bgr8', 'bayer_rggb8; jpeg compressed '):
        assert codec_of(compressed(b'x', 1, kind)) == ''
    with pytest.raises(UserError, match='unknown codec'):
        codec_of(packet(b'x', 1, 'rawvideo'))
