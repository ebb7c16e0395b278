"""Image tokens computed once: those that training would have computed each time."""

import numpy as np
import pytest
import torch

from mobile_vla_ros.cli.train import parse
from mobile_vla_ros.data.augment import Augmentation
from mobile_vla_ros.data.image_tokens import LIGHTS, ImageTokens
from mobile_vla_ros.data.runs import Sampling, load_runs
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.model.backbone import load_backbone
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.training.predict import dataset, predict


@pytest.fixture(scope='module')
def runs(takes):
    return load_runs(find_episodes(takes)[:2], Sampling())[0]


class Counting:
    """Stands for the vision part: a mean of each corner, and how many images it was given."""

    def __init__(self):
        self.images = 0

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.images += len(pixels)
        half = pixels.shape[-1] // 2
        return torch.stack([pixels[..., :half].mean((2, 3)), pixels[..., half:].mean((2, 3))], 1)


SPEC = load_backbone('builtin:tiny').image


def tokens(folder, encode, weights='w'):
    return ImageTokens(encode, weights, SPEC, Augmentation(mirror=True, light=0.1), folder)


def test_each_frame_is_encoded_once_in_each_variant_and_kept_on_disk(runs, tmp_path):
    """A second run over the same takes encodes nothing; other weights meet none of it."""
    first = Counting()
    tokens(tmp_path, first).prepare(runs)
    assert first.images == sum(len(run.frames) for run in runs) * 2 * (1 + LIGHTS)
    again, other = Counting(), Counting()
    tokens(tmp_path, again).prepare(runs)
    tokens(tmp_path, other, weights='v').prepare(runs)
    assert (again.images, other.images) == (0, first.images)
    assert not list(tmp_path.rglob('.*'))


def test_the_tokens_of_a_mirrored_frame_are_those_of_the_mirrored_image(runs, tmp_path):
    """Left and right of the picture change places; without light, frames are as they came."""
    one = tokens(tmp_path, Counting())
    one.prepare(runs)
    rows = slice(1, 4)
    plain, mirrored = (one.frames(runs[0], rows, flip, Augmentation()) for flip in (False, True))
    torch.testing.assert_close(mirrored, plain.flip(1))
    assert plain.shape == (3, 2, 3)
    lit = {tuple(one.frames(runs[0], rows, False, Augmentation(light=0.1)).flatten().tolist())
           for _ in range(40)}
    assert len(lit) == 1 + LIGHTS


def test_training_on_tokens_is_training_on_images(small_run, takes, small_backbone, tmp_path):
    """The same network and take: predictions from kept tokens are those from images."""
    from mobile_vla_ros.model.bundle import load_bundle
    loaded = load_bundle(small_run / 'best')
    spec = loaded.spec
    found, _ = load_runs(find_episodes(takes)[:2], Sampling())
    kept = ImageTokens(loaded.network.image_tokens, 'w', spec.image, Augmentation(), tmp_path)
    kept.prepare(found)
    images, tokens_ = (predict(loaded.network, dataset(found, spec, loaded.tokenizer, 18,
                                                       tokens=given)).motion
                       for given in (None, kept))
    np.testing.assert_allclose(tokens_, images, atol=2e-3)
    blanks = [predict(loaded.network, dataset(found, spec, loaded.tokenizer, 18, tokens=given,
                                              blank_images=True)).motion for given in (None, kept)]
    np.testing.assert_allclose(*blanks, atol=1e-5)


@pytest.mark.parametrize('blank', ['image', 'instruction'])
def test_a_control_is_trained_and_says_so(takes, small_backbone, tmp_path, blank):
    """`--blank` reaches the bundle; the one shown no image encodes none."""
    from mobile_vla_ros.model.bundle import read_spec
    best = train(*parse(['--data', str(takes), '--out', str(tmp_path / 'run'), '--backbone',
                         str(small_backbone), '--lora_scope', 'text', '--epochs', '1',
                         '--head_hidden', '16', '--head_layers', '1', '--blank', blank,
                         '--device', 'cpu']), say=lambda _: None)
    spec = read_spec(best)
    assert spec.blank == blank
    assert (spec.prompt('go') == '') == (blank == 'instruction')
    assert bool(list((tmp_path / 'run' / 'image_tokens').rglob('*.npy'))) == (blank != 'image')
