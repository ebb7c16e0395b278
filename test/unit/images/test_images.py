"""Camera messages become RGB and stored bytes, or are refused."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.images.compressed import FORMATS, compressed_to_rgb, encode, stored_compressed
from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (5, 7, 1), dtype=np.uint16)
WHOLE = slice(None)


def raw(
    encoding: str,
    rows: np.ndarray,
    *,
    width: int,
    height: int,
    padding: int = 0,
    big: bool = False,
) -> SimpleNamespace:
    """Return a message with (rows, values) of uint8 or uint16, each row padded with 99s."""
    data = rows.reshape(len(rows), -1).astype(rows.dtype.newbyteorder('>' if big else '<'))
    data = data.view(np.uint8)
    data = np.pad(data, ((0, 0), (0, padding)), constant_values=99)
    return SimpleNamespace(
        height=height,
        width=width,
        step=data.shape[1],
        encoding=encoding,
        data=data.tobytes(),
        is_bigendian=int(big),
    )


def bt601(y, u, v) -> np.ndarray:
    """Return RGB of limited-range YUV by the formula of ITU-R BT.601."""
    y, u, v = (np.asarray(plane, dtype=float) for plane in (y, u, v))
    light = 1.164 * (y - 16)
    rgb = np.stack(
        [
            light + 1.596 * (v - 128),
            light - 0.813 * (v - 128) - 0.391 * (u - 128),
            light + 2.018 * (u - 128),
        ],
        axis=-1,
    )
    return np.clip(rgb, 0, 255)


def case(encoding, rows, expected, tolerance=0, inside=WHOLE):
    """Return a row of the table; ``inside`` excludes the rim of a mosaic."""
    return pytest.param(encoding, rows, expected, tolerance, inside, id=encoding)


def plain_cases():
    """Encodings that are stored pixel by pixel."""
    grey = np.repeat(PIXELS[..., :1], 3, axis=2)
    yield case('rgb8', PIXELS, PIXELS)
    yield case('bgr8', PIXELS[..., ::-1], PIXELS)
    yield case('rgba8', np.insert(PIXELS, 3, 50, axis=2), PIXELS)
    yield case('bgra8', np.insert(PIXELS[..., ::-1], 3, 50, axis=2), PIXELS)
    yield case('mono8', PIXELS[..., :1], grey)
    # Scaled values are cut, not rounded.
    yield case('mono16', DEEP, np.repeat(DEEP / 257, 3, axis=2), 1)


def yuv_cases():
    """Two pixels, or two by two, share a colour; the formula gives the RGB of each."""
    y = RANDOM.integers(16, 236, (6, 8))
    u, v = RANDOM.integers(64, 193, (2, 6, 4))
    wide = bt601(y, u.repeat(2, axis=1), v.repeat(2, axis=1))
    even, odd = y[:, ::2], y[:, 1::2]
    packed = {'yuv422': (u, even, v, odd), 'yuv422_yuy2': (even, u, odd, v)}
    for encoding, newer in (('yuv422', 'uyvy'), ('yuv422_yuy2', 'yuyv')):
        rows = np.stack(packed[encoding], axis=2).astype(np.uint8)
        yield case(encoding, rows, wide, 2)
        yield case(newer, rows, wide, 2)
    low_u, low_v = u[::2], v[::2]
    square = bt601(y, *(plane.repeat(2, axis=0).repeat(2, axis=1) for plane in (low_u, low_v)))
    for encoding, pair in (('nv12', (low_u, low_v)), ('nv21', (low_v, low_u))):
        rows = np.concatenate([y, np.stack(pair, axis=2).reshape(3, 8)]).astype(np.uint8)
        yield case(encoding, rows, square, 2)


def bayer_cases():
    """Planes that are linear in x and y, so that bilinear interpolation is exact."""
    y, x = np.mgrid[:10, :12]
    scene = np.stack([20 + 9 * x, 210 - 7 * y - 3 * x, 40 + 11 * y], axis=2)
    for order in ('rggb', 'bggr', 'gbrg', 'grbg'):
        mosaic = np.zeros((10, 12))
        for place, letter in enumerate(order):
            row, column = divmod(place, 2)
            mosaic[row::2, column::2] = scene[row::2, column::2, 'rgb'.index(letter)]
        inside = (slice(1, -1), slice(1, -1))
        yield case(f'bayer_{order}8', mosaic.astype(np.uint8), scene, 1, inside)
        yield case(f'bayer_{order}16', (mosaic * 257).astype(np.uint16), scene, 1, inside)


TABLE = [*plain_cases(), *yuv_cases(), *bayer_cases()]


@pytest.mark.parametrize(('padding', 'big'), [(0, False), (3, False), (5, True)])
@pytest.mark.parametrize(('encoding', 'rows', 'expected', 'tolerance', 'inside'), TABLE)
def test_every_encoding_becomes_rgb(encoding, rows, expected, tolerance, inside, padding, big):
    """The pixels that went in come out, in RGB, whatever follows each row or leads each value."""
    height, width = expected.shape[:2]
    message = raw(encoding, rows, width=width, height=height, padding=padding, big=big)
    image = images.to_rgb(message)
    assert image.shape == expected.shape
    assert np.abs(image.astype(float) - expected)[inside].max() <= tolerance
    assert image.dtype == np.uint8 and image.flags.c_contiguous and not image.flags.writeable
    stored = decode(images.encode_message(message, 'png'))
    assert np.array_equal(stored, image)


def test_the_table_has_every_encoding():
    """Every supported encoding is tested."""
    assert {row.values[0] for row in TABLE} == set(images.ENCODINGS)


def test_an_unknown_encoding_names_the_known_ones():
    """It is refused with its name and the known ones."""
    with pytest.raises(UserError, match="got '16UC1'; expected rgb8, bgr8, rgba8, bgra8, mono8"):
        images.to_rgb(raw('16UC1', DEEP, width=7, height=5))


@pytest.mark.parametrize('encoding', ['rgb8', 'nv12'])
@pytest.mark.parametrize(
    'change',
    [{'data': b'123'}, {'step': 5}, {'width': 0}, {'height': 0}, {'height': 8}, {'width': 60}],
)
def test_a_wrong_size_is_refused(encoding, change):
    """A message with a wrong size is refused, not read beyond its end."""
    channels = 3 if encoding == 'rgb8' else 1
    rows = np.zeros((9, 6 * channels), np.uint8)
    message = raw(encoding, rows[: 6 if encoding == 'rgb8' else 9], width=6, height=6)
    images.to_rgb(message)
    vars(message).update(change)
    with pytest.raises(UserError, match='does not fit its data'):
        images.to_rgb(message)


@pytest.mark.parametrize(
    ('encoding', 'channels', 'width', 'height'),
    [('yuv422', 2, 5, 4), ('nv12', 1, 6, 5), ('nv21', 1, 5, 6)],
)
def test_an_odd_size_of_subsampled_colours_is_refused(encoding, channels, width, height):
    """Subsampled colours need an even size."""
    rows = np.zeros((height * 2, width * channels), np.uint8)
    with pytest.raises(UserError, match=f'{encoding} has an odd size; got {width}x{height}'):
        images.to_rgb(raw(encoding, rows, width=width, height=height))


def test_round_trip_through_a_message():
    """An array becomes an rgb8 message with its header, and the same array again."""
    from builtin_interfaces.msg import Time

    message = from_rgb(PIXELS, stamp=Time(sec=3, nanosec=4), frame_id='camera')
    assert (message.header.stamp.sec, message.header.frame_id) == (3, 'camera')
    assert (message.encoding, message.step, len(message.data)) == ('rgb8', 21, 105)
    assert np.array_equal(images.to_rgb(message), PIXELS)


def test_png_is_exact_and_jpeg_is_near():
    """PNG is lossless; JPEG of a smooth image stays within a few levels."""
    smooth = np.linspace(0, 255, 64 * 64, dtype=np.uint8).reshape(64, 64, 1).repeat(3, axis=2)
    smooth[..., 2] = smooth[::-1, :, 0]
    for image_format, tolerance in (('png', 0), ('jpeg', 6)):
        message = to_compressed(encode(smooth, image_format))
        assert message.format == image_format
        back = compressed_to_rgb(message)
        assert np.abs(back.astype(int) - smooth).max() <= tolerance


def test_jpeg_quality_counts():
    """A lower quality gives a smaller file."""
    noise = RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert len(encode(noise, quality=30)) < len(encode(noise, quality=90)) / 2


@pytest.mark.parametrize(
    ('kind', 'mode', 'tolerance'),
    [
        ('JPEG', 'RGB', 4),
        ('JPEG', 'L', 4),
        ('PNG', 'RGB', 0),
        ('PNG', 'L', 0),
        ('PNG', 'RGBA', 0),
        ('PNG', 'I;16', 1),
    ],
)
def test_every_compressed_kind_becomes_rgb(kind, mode, tolerance):
    """Colour, grey, transparent and 16 bits are decoded."""
    grey = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    if mode == 'I;16':
        original = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        original = Image.fromarray(grey).convert(mode)
    buffer = io.BytesIO()
    original.save(buffer, kind, **({'quality': 95} if kind == 'JPEG' else {}))
    image = compressed_to_rgb(SimpleNamespace(data=buffer.getvalue(), format=kind))
    assert image.shape == (32, 32, 3)
    assert np.abs(image.astype(int) - grey[..., None]).max() <= tolerance


def test_compressed_image_passes_through_untouched():
    """A compressed image is stored byte for byte."""
    stored = encode(PIXELS, 'jpeg', 40)
    assert stored_compressed(to_compressed(stored)) == stored


def test_unknown_compression_and_format_are_refused():
    """Neither JPEG nor PNG; a format that cannot be written; a broken or truncated JPEG."""
    with pytest.raises(UserError, match="got 'h264'; expected JPEG or PNG"):
        stored_compressed(SimpleNamespace(data=b'\0\0\0\1', format='h264'))
    with pytest.raises(UserError, match="got 'webp'; expected jpeg or png"):
        encode(PIXELS, 'webp')
    for image_format in FORMATS:
        stored = encode(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8), image_format)
        for broken in (stored[:8], stored[: len(stored) // 2]):
            with pytest.raises(UserError, match='is broken'):
                compressed_to_rgb(SimpleNamespace(data=broken, format=image_format))
