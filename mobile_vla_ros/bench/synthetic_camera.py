"""Synthetic camera images: moving, as detailed as a photograph, with a number in the pixels."""

import zlib

import numpy as np
from PIL import Image, ImageDraw

# A number is drawn as squares, dark for 0 and bright for 1, large enough to survive JPEG.
SQUARE = 16
NUMBER_BITS, CHECK_BITS = 32, 16
DARK, BRIGHT = 16, 235
MARGIN = 96  # amplitude of the camera's sway, pixels
# Light and shade at several sizes, as in real scenes: grain (pixels) -> strength.
GRAINS = {256: 40.0, 64: 18.0, 16: 7.0, 6: 3.0}
NOISE, COLOUR_NOISE = 1.8, 1.0
SHAPES = 40


def images(width: int, height: int, count: int, seed: int = 0) -> list[np.ndarray]:
    """
    Return ``count`` images, one full sway of the camera over a scene.

    :returns: (height, width, 3) uint8 each, RGB, contiguous.
    """
    random = np.random.default_rng(seed)
    scene = _scene(width + 2 * MARGIN, height + 2 * MARGIN, random)
    size = (height + MARGIN, width + MARGIN)
    noise = (
        random.normal(0.0, NOISE, (*size, 1)) + random.normal(0.0, COLOUR_NOISE, (*size, 3))
    ).astype(np.float32)
    made = []
    for angle in np.linspace(0.0, 2 * np.pi, count, endpoint=False):
        x, y = (int(MARGIN * (1 + offset)) for offset in (np.cos(angle), np.sin(angle)))
        left, top = random.integers(0, MARGIN, 2)
        image = (
            scene[y : y + height, x : x + width] + noise[top : top + height, left : left + width]
        )
        made.append(np.clip(image, 0, 255).astype(np.uint8))
    return made


def draw_number(image: np.ndarray, number: int):
    """
    Draw a number and its checksum into the top of an image, in place.

    :param image: (height, width, 3) uint8, in any colour order.
    :param number: 0 to 2**32 - 1.
    :raises ValueError: if the image is too small.
    """
    rows, columns = _layout(image)
    bits = np.zeros(rows * columns, np.uint8)
    code = number << CHECK_BITS | _check(number)
    wanted = NUMBER_BITS + CHECK_BITS
    bits[:wanted] = [code >> (wanted - 1 - place) & 1 for place in range(wanted)]
    squares = np.where(bits.reshape(rows, columns), BRIGHT, DARK).astype(np.uint8)
    drawn = squares.repeat(SQUARE, axis=0).repeat(SQUARE, axis=1)
    image[: drawn.shape[0], : drawn.shape[1]] = drawn[:, :, None]


def read_number(image: np.ndarray, scale: int = 1) -> int | None:
    """
    Return the number drawn into an image; None if its checksum does not match.

    :param image: (height, width, 3) uint8, possibly after lossy encoding.
    :param scale: by how much the decoded image is reduced: 1, 2 or 4.
    """
    side = SQUARE // scale
    rows, columns = _layout(image, side)
    squares = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    inner = slice(side // 4, -side // 4)
    bits = squares[:, inner, :, inner].mean(axis=(1, 3, 4)).ravel() > (DARK + BRIGHT) / 2
    code = int(''.join('01'[int(bit)] for bit in bits[: NUMBER_BITS + CHECK_BITS]), 2)
    number = code >> CHECK_BITS
    return number if code & (1 << CHECK_BITS) - 1 == _check(number) else None


def _check(number: int) -> int:
    return zlib.crc32(number.to_bytes(NUMBER_BITS // 8, 'big')) & (1 << CHECK_BITS) - 1


def _layout(image: np.ndarray, side: int = SQUARE) -> tuple[int, int]:
    """Return the rows and columns of squares for an image of this size."""
    height, width, _ = image.shape
    columns = width // side
    rows = -(-(NUMBER_BITS + CHECK_BITS) // columns) if columns else 0
    if not rows or rows * side > height:
        raise ValueError(f'image of {width}x{height} is too small for a number')
    return rows, columns


def _scene(width: int, height: int, random: np.random.Generator) -> np.ndarray:
    """Return (height, width, 3) float32: soft light, objects with edges, texture."""
    canvas = Image.new('RGB', (width, height), (128, 124, 118))
    pen = ImageDraw.Draw(canvas)
    for _ in range(SHAPES):
        x, y = random.integers(0, (width, height))
        w, h = random.integers(30, 260, 2)
        colour = tuple(
            int(c) for c in np.clip(random.normal(120, 45) + random.normal(0, 22, 3), 0, 255)
        )
        (pen.rectangle if random.random() < 0.6 else pen.ellipse)((x, y, x + w, y + h), colour)
    scene = np.asarray(canvas, np.float32)
    for grain, strength in GRAINS.items():
        grey = random.normal(0.0, strength, (height // grain + 2, width // grain + 2))
        field = Image.fromarray(grey.astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        scene = scene + np.asarray(field)[:, :, None]
    return scene
