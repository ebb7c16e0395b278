"""Stored images decoded at a reduced scale: when, with what loss, and equally everywhere."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from busy_images import busy_images
from mobile_vla_ros.bench import synthetic_camera
from mobile_vla_ros.data.dataset import SegmentDataset
from mobile_vla_ros.data.preprocess import preprocess, resize
from mobile_vla_ros.data.segments import Sampling, load_segments
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.images.compressed import compressed_to_rgb
from mobile_vla_ros.images.stored import BrokenImage, decode
from mobile_vla_ros.nodes.inference.camera import CameraFrame
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mobile_vla_ros.types import ActionSpec, Command, ImageSpec
from small_episodes import CREATED_NS

SPEC = ImageSpec(224, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


@pytest.mark.parametrize(
    ('width', 'height', 'least', 'expected'),
    [
        (1280, 720, 224, (360, 640)),
        (1920, 1080, 224, (540, 960)),
        (640, 480, 224, (480, 640)),
        (672, 672, 224, (336, 336)),
        (671, 672, 224, (672, 671)),
        (1345, 673, 224, (337, 673)),
        (1280, 720, 56, (90, 160)),
        (1280, 720, 480, (720, 1280)),
        (1280, 720, None, (720, 1280)),
    ],
)
def test_both_sides_stay_one_and_a_half_times_the_network_s(width, height, least, expected):
    """The scale is the smallest whose sides both stay 1.5 times those of the network's input."""
    buffer = io.BytesIO()
    Image.new('RGB', (width, height), (20, 120, 220)).save(buffer, 'JPEG')
    image = decode(buffer.getvalue(), least)
    assert image.shape == (*expected, 3)
    assert np.abs(image.astype(int) - [20, 120, 220]).max() <= 3


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_only_a_jpeg_is_reduced(kind, mode):
    """A PNG is not; a grey JPEG is reduced and has three channels."""
    buffer = io.BytesIO()
    Image.new(mode, (1280, 720), 90 if mode == 'L' else (90, 90, 90)).save(buffer, kind)
    image = decode(buffer.getvalue(), 224)
    assert image.shape == ((360, 640, 3) if kind == 'JPEG' else (720, 1280, 3))
    assert (image == 90).all()


@pytest.mark.parametrize(('width', 'height', 'most'), [(1280, 720, 12), (1920, 1080, 7)])
def test_the_loss_at_the_network_s_size_is_small(width, height, most):
    """A third of a grey level on average, and less at each pixel than by JPEG itself."""
    for encoded in busy_images(width, height, count=2):
        whole, reduced = (
            resize(decode(encoded, least), SPEC).astype(int) for least in (None, SPEC.size)
        )
        lost = np.abs(whole - reduced)
        assert 0 < lost.mean() < 0.35
        assert lost.max() <= most


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_broken_bytes_are_refused_at_any_scale(kind):
    """Truncated or with an overwritten header, an image is refused."""
    (encoded,) = busy_images(1280, 720, kind)
    for broken in (
        b'',
        encoded[:2],
        encoded[:300],
        encoded[: len(encoded) // 2],
        bytes(200) + encoded[200:],
    ):
        for least in (None, 224):
            messages = set()
            for _ in range(2):
                with pytest.raises(BrokenImage) as found:
                    decode(broken, least)
                messages.add(str(found.value))
            assert len(messages) == 1 and '0x' not in messages.pop(), (
                'training would log it in every epoch'
            )


@pytest.mark.parametrize(
    ('kind', 'size'), [('JPEG', (1280, 720)), ('PNG', (480, 270)), ('JPEG', (640, 480))]
)
def test_a_frame_is_the_same_in_training_and_in_driving(tmp_path, kind, size):
    """Law 3: bytes from the camera give one tensor, through an episode and through the node."""
    encoded = busy_images(*size, kind, count=5)
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for index, frame in enumerate(encoded):
        now_ns = CREATED_NS + index * 100_000_000
        writer.add_frame(frame, now_ns, now_ns)
        writer.add_command(Command([0.1, 0, 0, 0, 0, 0], now_ns, now_ns, 'teleop'))
    runs, _ = load_segments([writer.close('success')], Sampling(window=2), ['good', 'poor', 'bad'])
    data = SegmentDataset(runs, ActionSpec(), SPEC, 18, {'go': torch.zeros(1)})
    trained = data[0].frames
    driven = torch.stack(
        [
            preprocess(CameraFrame(to_compressed(frame), 0, 0, SPEC.size).image, SPEC)
            for frame in encoded
        ]
    )
    assert torch.equal(trained, driven)
    whole = torch.stack([preprocess(decode(frame), SPEC) for frame in encoded])
    assert torch.equal(trained, whole) == ((kind, size) != ('JPEG', (1280, 720)))


def test_a_raw_image_is_not_reduced():
    """An uncompressed image is only resized to the network's input."""
    (pixels,) = synthetic_camera.images(1280, 720, 1)
    assert np.array_equal(CameraFrame(from_rgb(pixels), 0, 0, SPEC.size).image, pixels)


def test_other_decoders_do_not_reduce():
    """The decoder of messages, which imports and pages use, reduces nothing."""
    (encoded,) = busy_images(1280, 720)
    assert compressed_to_rgb(to_compressed(encoded)).shape == (720, 1280, 3)
