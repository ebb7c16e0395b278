"""JPEGs and PNGs with a defect each, made from a seed: what a broken or a hostile camera sends."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

PNG_START = b'\x89PNG\r\n\x1a\n'
# The beginnings of other formats that Pillow knows; the first would start Ghostscript.
OTHERS = (
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n',
    b'\xc5\xd0\xd3\xc6\x20\0\0\0',
    b'GIF89a\x10\0\x10\0\xf0\0\0',
    b'BM\x36\0\0\0\0\0\0\0\x36\0\0\0',
    b'II*\0\x08\0\0\0',
    b'MM\0*\0\0\0\x08',
    b'RIFF\x24\0\0\0WEBPVP8 ',
    b'P6 16 12 255\n',
    b'8BPS\0\1',
    b'\0\0\1\0\1\0\x10\x10',
    b'\0\0\0\x0cjP  \r\n\x87\n',
    b'DDS \x7c\0\0\0',
    b'\x8aMNG\r\n\x1a\n',
    b'%PDF-1.4\n',
    b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    b'\0\0\0\x01\x67h264',
)
CHUNKS = (b'zTXt', b'iTXt', b'tEXt', b'iCCP', b'eXIf', b'tRNS', b'PLTE', b'gAMA', b'cHRM', b'pHYs')
CHUNKS += (
    b'acTL',
    b'fcTL',
    b'fdAT',
    b'IDAT',
    b'IEND',
    b'IHDR',
    b'sRGB',
    b'tIME',
    b'ABCD',
    b'\0\1',
)
SEGMENTS = (0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xC9, 0xD9)
APPS = (
    b'Exif\0\0',
    b'MPF\0',
    b'ICC_PROFILE\0\1\1',
    b'Adobe\0',
    b'JFIF\0',
    b'Photoshop 3.0\0',
    b'',
)


def base_images() -> dict[str, bytes]:
    """Return whole images by name: JPEG and PNG of several sizes and kinds."""
    rng = np.random.default_rng(0)

    def made(width: int, height: int, kind: str, mode: str = 'RGB', **options) -> bytes:
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return {
        'jpeg': made(64, 48, 'JPEG', quality=90),
        'large jpeg': made(240, 180, 'JPEG', quality=60),
        'progressive jpeg': made(97, 61, 'JPEG', progressive=True),
        'grey jpeg': made(33, 17, 'JPEG', 'L'),
        'png': in_small_chunks(made(64, 48, 'PNG')),
        'transparent png': made(31, 19, 'PNG', 'RGBA'),
        'palette png': made(40, 30, 'PNG', 'P'),
        'grey png': made(80, 60, 'PNG', 'L'),
    }


def chunk(name: bytes, data: bytes, *, length: int | None = None) -> bytes:
    """Return a chunk of a PNG with its checksum."""
    length = len(data) if length is None else length
    return struct.pack('>I', length) + name + data + struct.pack('>I', zlib.crc32(name + data))


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Return the chunks of a whole PNG, as names and data."""
    found, at = [], len(PNG_START)
    while at < len(png):
        (length,) = struct.unpack_from('>I', png, at)
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def join(parts: list[tuple[bytes, bytes]]) -> bytes:
    """Return the PNG of chunks."""
    return PNG_START + b''.join(chunk(name, data) for name, data in parts)


def in_small_chunks(png: bytes, size: int = 400) -> bytes:
    """Return a PNG whose pixels are in chunks of ``size`` bytes, as cameras' encoders write it."""
    parts = chunks(png)
    pixels = b''.join(data for name, data in parts if name == b'IDAT')
    split = [(b'IDAT', pixels[at : at + size]) for at in range(0, len(pixels), size)]
    return join([*(part for part in parts if part[0] == b'IHDR'), *split, (b'IEND', b'')])


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """Return a PNG with one more chunk after its header."""
    parts = chunks(png)
    return join([parts[0], (name, data), *parts[1:]])


def garbled_length(png: bytes) -> bytes:
    """Return a PNG whose first chunk of pixels claims to end early: Pillow's SyntaxError."""
    at = png.index(b'IDAT') - 4
    (length,) = struct.unpack_from('>I', png, at)
    return png[:at] + struct.pack('>I', length - 40) + png[at + 4 :]


def mutants(base: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Return so many mutations of an image; one in ten is mutated twice."""
    rng = random.Random(seed)
    own = PNG_MUTATIONS if base.startswith(PNG_START) else JPEG_MUTATIONS
    for _ in range(count):
        encoded = rng.choice(own)(rng, base)
        if rng.random() < 0.1:
            encoded = rng.choice(MUTATIONS)(rng, encoded)
        yield encoded


def _flipped(rng: random.Random, encoded: bytes) -> bytes:
    changed = bytearray(encoded)
    reach = len(changed) if rng.random() < 0.5 else min(len(changed), 700)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if reach:
            changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, encoded: bytes) -> bytes:
    kept = len(encoded) - rng.choice((1, 2, 4, 12, 13, rng.randrange(1, len(encoded) + 1)))
    return encoded[: max(0, kept)]


def _shifted(rng: random.Random, encoded: bytes) -> bytes:
    """A slice removed, doubled, zeroed or made noise."""
    first = rng.randrange(len(encoded) + 1)
    last = min(len(encoded), first + rng.choice((1, 2, 8, 100, 1000)))
    between = rng.choice(
        (b'', encoded[first:last] * 2, bytes(last - first), rng.randbytes(last - first))
    )
    return encoded[:first] + between + encoded[last:]


def _other_format(rng: random.Random, encoded: bytes) -> bytes:
    head = rng.choice(OTHERS)
    return rng.choice(
        (head, head + encoded, head + encoded[len(head) :], encoded[:20] + head, encoded + head)
    )


def _padded(rng: random.Random, encoded: bytes) -> bytes:
    return encoded + rng.choice((bytes, rng.randbytes))(rng.choice((1, 16, 5000)))


def _reorder(rng: random.Random, parts: list) -> None:
    """Swap two parts, repeat one elsewhere, or delete one."""
    one, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    match rng.randrange(3):
        case 0:
            parts[one], parts[other] = parts[other], parts[one]
        case 1:
            parts.insert(other, parts[one])
        case _:
            del parts[one]


def _png_order(rng: random.Random, encoded: bytes) -> bytes:
    parts = chunks(encoded)
    _reorder(rng, parts)
    return join(parts)


def _png_length(rng: random.Random, encoded: bytes) -> bytes:
    parts = chunks(encoded)
    wrong = rng.randrange(len(parts))
    length = rng.choice((0, 1, 12, 2**31, 2**32 - 1, rng.randrange(2**16)))
    return PNG_START + b''.join(
        chunk(*part, length=length if number == wrong else None)
        for number, part in enumerate(parts)
    )


def _png_insert(rng: random.Random, encoded: bytes) -> bytes:
    parts = chunks(encoded)
    name = rng.choice(CHUNKS)
    data = rng.choice(
        (
            b'',
            rng.randbytes(rng.choice((1, 4, 8, 26, 300))),
            b'key\0\0' + _BOMB,
            b'key\0\1\0\0\0' + _BOMB,
            struct.pack('>II', rng.randrange(4), rng.randrange(4)),
            struct.pack(
                '>IIIIIHHBB', *(rng.choice((0, 1, 9, 64, 2**31)) for _ in range(5)), 1, 1, 1, 1
            ),
        )
    )
    parts.insert(rng.randrange(len(parts) + 1), (name, data))
    return join(parts)


def _png_header(rng: random.Random, encoded: bytes) -> bytes:
    """Another size, depth, colour or interlacing, with the right checksum."""
    parts = chunks(encoded)
    width, height, *rest = struct.unpack('>IIBBBBB', parts[0][1])
    match rng.randrange(12):
        case 0:
            width, height = (rng.choice((0, 1, 2**16, 2**31, 2**32 - 1)) for _ in range(2))
        case 1:
            width, height = rng.randrange(1, 300), rng.randrange(1, 300)
        case _:
            rest[rng.randrange(5)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    parts[0] = (b'IHDR', struct.pack('>IIBBBBB', width, height, *rest))
    return join(parts)


def _png_pixels(rng: random.Random, encoded: bytes) -> bytes:
    """Pixels changed before or after their compression, with the right checksums."""
    parts = chunks(encoded)
    pixels = b''.join(data for name, data in parts if name == b'IDAT')
    if rng.random() < 0.5:
        raw = zlib.decompress(pixels)
        pixels = zlib.compress(_shifted(rng, _flipped(rng, raw)))
    else:
        pixels = _shifted(rng, pixels)
    return join([parts[0], (b'IDAT', pixels), (b'IEND', b'')])


def _segments(jpeg: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the segments of a JPEG before its pixels, as markers and data; and the rest."""
    found, at = [], 2
    while at + 4 <= len(jpeg):
        marker, length = struct.unpack_from('>xBH', jpeg, at)
        found.append((marker, jpeg[at + 4 : at + 2 + length]))
        at += 2 + length
        if marker == 0xDA:
            break
    return found, jpeg[at:]


def _jpeg(segments: list[tuple[int, bytes]], rest: bytes, wrong: int | None = None) -> bytes:
    lengths = [len(data) + 2 for _, data in segments]
    if wrong is not None:
        lengths[wrong % len(lengths)] = wrong % 2**16
    return (
        b'\xff\xd8'
        + b''.join(
            struct.pack('>BBH', 0xFF, marker, length) + data
            for (marker, data), length in zip(segments, lengths, strict=True)
        )
        + rest
    )


def _jpeg_order(rng: random.Random, encoded: bytes) -> bytes:
    segments, rest = _segments(encoded)
    _reorder(rng, segments)
    return _jpeg(segments, rest)


def _jpeg_length(rng: random.Random, encoded: bytes) -> bytes:
    segments, rest = _segments(encoded)
    return _jpeg(segments, rest, rng.randrange(2**20))


def _jpeg_insert(rng: random.Random, encoded: bytes) -> bytes:
    segments, rest = _segments(encoded)
    data = rng.choice(APPS) + rng.randbytes(rng.choice((0, 1, 6, 30, 500)))
    segments.insert(rng.randrange(len(segments) + 1), (rng.choice(SEGMENTS), data))
    return _jpeg(segments, rest)


def _jpeg_segment(rng: random.Random, encoded: bytes) -> bytes:
    """Tables, sampling or, seldom, the size changed."""
    segments, rest = _segments(encoded)
    which = rng.randrange(len(segments))
    marker, data = segments[which]
    if marker in (0xC0, 0xC2) and rng.random() < 0.5:
        size = [rng.choice((0, 1, 7, 200, 9000, 65535)) for _ in range(2)]
        data = data[:1] + struct.pack('>HH', *size) + data[5:]
    segments[which] = (marker, _flipped(rng, data))
    return _jpeg(segments, rest)


def _jpeg_pixels(rng: random.Random, encoded: bytes) -> bytes:
    segments, rest = _segments(encoded)
    return _jpeg(segments, rng.choice((_shifted, _flipped))(rng, rest))


_BOMB = zlib.compress(bytes(3_000_000), 9)
Mutation = Callable[[random.Random, bytes], bytes]
MUTATIONS: tuple[Mutation, ...] = (_flipped, _cut, _shifted, _other_format, _padded)
PNG_MUTATIONS = (*MUTATIONS, _png_order, _png_length, _png_insert, _png_header, _png_pixels)
JPEG_MUTATIONS = (
    *MUTATIONS,
    _jpeg_order,
    _jpeg_length,
    _jpeg_insert,
    _jpeg_segment,
    _jpeg_pixels,
)
