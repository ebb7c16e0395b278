"""Image quality: dark, blurred, or good."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from mobile_vla_ros.episode.quality import image_quality
from mobile_vla_ros.episode.quality.image_quality import ImageQuality, is_due, measure
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.suites import scene

S = 1_000_000_000


def encode(image: Image.Image, kind: str = 'JPEG', noise: float = 0.0) -> bytes:
    """Return an encoded image, with sensor noise on request."""
    if noise:
        pixels = np.asarray(image, dtype=np.float32)
        pixels = pixels + np.random.default_rng(1).normal(0, noise, pixels.shape)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return buffer.getvalue()


def leaves(width: int = 1280, height: int = 720, count: int = 400) -> Image.Image:
    """
    Return an image with the statistics of a photograph: overlapping shapes.

    Dead leaves whose radii follow an inverse cube law (Lee, Mumford and Huang, 2001), softened
    as by a lens.
    """
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    pixels = np.full((height, width, 3), 128, np.uint8)
    smallest = width / 60
    for _ in range(count):
        radius = min(smallest / np.sqrt(1 - rng.uniform(0, 0.995)), width / 4)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        left, right = int(max(0, x - radius)), int(min(width, x + radius + 1))
        top, under = int(max(0, y - radius)), int(min(height, y + radius + 1))
        box = np.s_[top:under, left:right]
        inside = (rows[box] - y) ** 2 + (columns[box] - x) ** 2 < radius**2
        pixels[box][inside] = rng.integers(20, 236, 3)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(width / 1280))


def smear(image: Image.Image, pixels: int) -> Image.Image:
    """Return an image with the motion blur of a turn: each pixel is a mean over its neighbours."""
    values = np.asarray(image, dtype=np.float32)
    sums = np.cumsum(np.pad(values, ((0, 0), (pixels, 0), (0, 0)), mode='edge'), axis=1)
    return Image.fromarray(((sums[:, pixels:] - sums[:, :-pixels]) / pixels).astype(np.uint8))


@pytest.fixture(scope='module')
def photo() -> Image.Image:
    """An image like a photograph, 1280 x 720."""
    return leaves()


@pytest.fixture(scope='module')
def arena_images() -> list[Image.Image]:
    """Images of the arena's camera at the start of some episodes."""
    arena = Arena(224, 224)
    found = []
    for suite, index in (('train', 0), ('train', 1), ('unseen_pairs', 0)):
        arena.reset(scene(suite, index))
        found.append(Image.fromarray(arena.render()))
    arena.close()
    return found


@pytest.mark.parametrize('width', [224, 448, 1280])
@pytest.mark.parametrize('light', [1.0, 0.4])
def test_a_blurred_photograph_is_distinguished_from_a_sharp_one(photo, width, light):
    """For the same scene at any size and in any light, also with sensor noise."""
    scale = width / 224
    for blur, expected in ((0.0, False), (2.5, True), (6.0, True)):
        seen = photo.resize((width, width * 9 // 16), Image.Resampling.LANCZOS)
        seen = seen.filter(ImageFilter.GaussianBlur(blur * scale)) if blur else seen
        found = measure(encode(ImageEnhance.Brightness(seen).enhance(light), noise=2.0))
        assert found.blurred is expected and not found.dark, (blur, found)


def test_sharpness_hardly_depends_on_size_or_light(photo):
    """The same scene in three sizes and three lights has nearly the same measure."""
    sizes = [
        measure(encode(photo.resize((width, width * 9 // 16), Image.Resampling.LANCZOS)))
        for width in (320, 640, 1280)
    ]
    lights = [measure(encode(ImageEnhance.Brightness(photo).enhance(by))) for by in (1, 0.5, 0.25)]
    for found in (sizes, lights):
        values = [one.sharpness for one in found]
        assert max(values) - min(values) < 0.1, values


def test_motion_blur_of_a_turn_is_blur(photo):
    """Although edges along the motion stay sharp."""
    assert measure(
        encode(smear(photo, 57))
    ).blurred  # a turn of 2.5 degrees, with a field of view of 60
    assert not measure(encode(smear(photo, 4))).blurred


def test_images_of_the_arena_are_neither_dark_nor_blurred(arena_images):
    """Images of the arena are good; out of focus they are not."""
    for view in arena_images:
        assert not measure(encode(view)).blurred and not measure(encode(view)).dark
        assert measure(encode(view.filter(ImageFilter.GaussianBlur(3)))).blurred


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_a_lens_cap_is_dark_and_a_wall_is_not_blurred(kind):
    """Black with sensor noise is dark; a plain wall has no edges, but is not blurred."""
    cap = measure(encode(Image.new('RGB', (640, 480)), kind, noise=3.0))
    assert cap.dark and not cap.blurred
    wall = measure(encode(Image.new('RGB', (640, 480), (180, 170, 160)), kind, noise=3.0))
    assert not wall.dark and not wall.blurred and np.isnan(wall.sharpness)


def test_sixteen_bits_per_pixel_keep_their_brightness():
    """16-bit values are not clipped to white."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64), 0x4000, np.uint16)).save(buffer, 'PNG')
    assert measure(buffer.getvalue()).brightness == pytest.approx(0.25, abs=0.01)


def test_measuring_decodes_at_a_reduced_scale(photo, monkeypatch):
    """A 720p JPEG is never decoded at full size, which keeps measuring cheap."""
    sizes, convert = [], Image.Image.convert

    def spy(self, *args, **kwargs):
        sizes.append(self.size)
        return convert(self, *args, **kwargs)

    encoded = encode(photo)
    monkeypatch.setattr(Image.Image, 'convert', spy)
    measure(encoded)
    assert sizes == [(320, 180)]


@pytest.mark.parametrize('broken', [b'', b'no image', encode(Image.new('RGB', (64, 64)))[:300]])
def test_a_broken_image_raises_a_user_error(broken):
    """An image that cannot be decoded."""
    with pytest.raises(UserError, match='is broken'):
        measure(broken)


def sampled_rows(received_ns: np.ndarray) -> np.ndarray:
    """Return the rows that are measured for frames with these receipt times."""
    rows, last_ns = [], None
    for row, time_ns in enumerate(received_ns.tolist()):
        if is_due(time_ns, last_ns):
            rows.append(row)
            last_ns = time_ns
    return np.array(rows, dtype=np.int64)


@given(st.lists(st.integers(0, 3 * S), min_size=1, max_size=80))
def test_about_one_frame_a_second_is_measured(steps):
    """The first, then each that is at least a second after the last measured one."""
    received = np.cumsum(steps)
    rows = sampled_rows(received)
    assert rows[0] == 0
    assert np.all(np.diff(received[rows]) >= S)
    for start, stop in zip(rows, [*rows[1:], len(received)], strict=True):
        assert np.all(received[start + 1 : stop] - received[start] < S)


def test_a_clock_set_back_restarts_the_seconds():
    """Frames after a step back of the receiving clock are measured as before."""
    received = np.concatenate([np.arange(20), np.arange(-100, -80)]) * S // 10
    assert sampled_rows(received).tolist() == [0, 10, 20, 30]
    assert sampled_rows(np.zeros(0, np.int64)).tolist() == []


def test_a_dark_image_is_not_also_called_blurred():
    """One fault, one reason."""
    assert not ImageQuality(0.01, 0.1).blurred
    assert ImageQuality(image_quality.DARK_BRIGHTNESS, 0.1).blurred


@given(st.lists(st.floats(0, 255, width=32), min_size=1), st.sampled_from([50, 90, 98]))
def test_percentiles_are_those_of_numpy(values, percent):
    """Also of one value, and between two."""
    values = np.array(values, np.float32)
    expected = np.percentile(values, percent)
    assert image_quality._percentile(values, percent) == pytest.approx(expected, abs=1e-3)
