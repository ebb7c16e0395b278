"""Camera messages become RGB and stored bytes, and nothing is guessed."""

from types import SimpleNamespace

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes import images

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def raw(encoding: str, channels: np.ndarray, padding: int = 0) -> SimpleNamespace:
    """Return a message of (height, width, channels) bytes with padded rows."""
    height, width, count = channels.shape
    rows = np.full((height, width * count + padding), 99, np.uint8)
    rows[:, :width * count] = channels.reshape(height, -1)
    return SimpleNamespace(height=height, width=width, step=rows.shape[1], encoding=encoding,
                           data=rows.tobytes(), is_bigendian=0)


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize(('encoding', 'channels', 'expected'), [
    ('rgb8', PIXELS, PIXELS),
    ('bgr8', PIXELS[..., ::-1], PIXELS),
    ('rgba8', np.insert(PIXELS, 3, 50, axis=2), PIXELS),
    ('bgra8', np.insert(PIXELS[..., ::-1], 3, 50, axis=2), PIXELS),
    ('mono8', PIXELS[..., :1], np.repeat(PIXELS[..., :1], 3, axis=2)),
])
def test_every_encoding_becomes_rgb(encoding, channels, expected, padding):
    """The pixels that went in come out, in RGB, whatever follows each row."""
    image = images.to_rgb(raw(encoding, channels, padding))
    assert np.array_equal(image, expected)
    assert image.dtype == np.uint8 and image.flags.c_contiguous


def test_unknown_encoding_names_the_known_ones():
    """An encoding that is not known is refused, with its name and the known ones."""
    with pytest.raises(UserError, match="got '16UC1'; expected rgb8, bgr8, rgba8, bgra8, mono8"):
        images.to_rgb(raw('16UC1', PIXELS))


@pytest.mark.parametrize('change', [
    {'data': b'123'}, {'step': 20}, {'width': 0}, {'height': 6}])
def test_size_that_does_not_fit_is_a_sentence(change):
    """A message that lies about its size is refused, not read beyond its end."""
    message = raw('rgb8', PIXELS)
    vars(message).update(change)
    with pytest.raises(UserError, match='does not fit its data'):
        images.to_rgb(message)


def test_round_trip_through_a_message():
    """An array becomes an rgb8 message with its header, and the same array again."""
    from builtin_interfaces.msg import Time
    message = images.from_rgb(PIXELS, stamp=Time(sec=3, nanosec=4), frame_id='camera')
    assert (message.header.stamp.sec, message.header.frame_id) == (3, 'camera')
    assert (message.encoding, message.step, len(message.data)) == ('rgb8', 21, 105)
    assert np.array_equal(images.to_rgb(message), PIXELS)


def test_png_is_exact_and_jpeg_is_near():
    """PNG keeps every bit; JPEG of a smooth picture stays within a few steps."""
    smooth = np.linspace(0, 255, 64 * 64, dtype=np.uint8).reshape(64, 64, 1).repeat(3, axis=2)
    for image_format, tolerance in (('png', 0), ('jpeg', 6)):
        message = images.to_compressed(images.encode(smooth, image_format))
        assert message.format == image_format
        back = images.compressed_to_rgb(message)
        assert np.abs(back.astype(int) - smooth).max() <= tolerance


def test_compressed_image_passes_through_untouched():
    """What a camera compressed is stored byte for byte."""
    stored = images.encode(PIXELS, 'jpeg', 40)
    assert images.compressed_bytes(images.to_compressed(stored)) == stored


def test_unknown_compression_and_format_are_sentences():
    """Neither JPEG nor PNG; a format that cannot be written; a broken JPEG."""
    with pytest.raises(UserError, match="got 'h264'; expected JPEG or PNG"):
        images.compressed_bytes(SimpleNamespace(data=b'\0\0\0\1', format='h264'))
    with pytest.raises(UserError, match="got 'webp'; expected jpeg or png"):
        images.encode(PIXELS, 'webp')
    with pytest.raises(UserError, match='is broken'):
        images.compressed_to_rgb(SimpleNamespace(data=b'\xff\xd8\xff\xe0', format='jpeg'))
