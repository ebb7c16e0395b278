"""Image tokens that are computed once equal those that training would compute each time."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from generators import seeded
from made_segments import first_segments
from mobile_vla_ros.data import image_tokens
from mobile_vla_ros.data.augment import Augmentation, mirror_instruction
from mobile_vla_ros.data.dataset import SegmentDataset, collate
from mobile_vla_ros.data.image_tokens import DRAWS, ImageTokens
from mobile_vla_ros.data.segments import Sampling, load_segments
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.predict import policy_dataset, predict
from mobile_vla_ros.model.backbone import load_backbone
from mobile_vla_ros.training.flags import parse
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.types import ActionSpec


@pytest.fixture(scope='module')
def segments(episode_folder):
    return first_segments(episode_folder)


@pytest.fixture
def broken_segment(segments, tmp_path):
    """Return the first segment of an episode whose frame 5 is overwritten."""
    path = tmp_path / segments[0].path.name
    data = bytearray(segments[0].path.read_bytes())
    with Episode.open(segments[0].path) as episode:
        at = data.find(episode.encoded(int(segments[0].frames[5])))
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    return replace(segments[0], path=path)


class CountingVision:
    """A stand-in for the vision part: the mean of each half, and a count of its images."""

    def __init__(self):
        self.images = 0

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.images += len(pixels)
        half = pixels.shape[-1] // 2
        return torch.stack([pixels[..., :half].mean((2, 3)), pixels[..., half:].mean((2, 3))], 1)


SPEC = load_backbone('builtin:tiny').image
ALL = Augmentation(mirror=True, light=0.1, colour=0.1, shift=0.1)
BLANK = 1  # image that is encoded as the blank one


def tokens(folder, encode, weights='w', augmentation=ALL):
    return ImageTokens(encode, weights, SPEC, augmentation, folder)


def files(folder) -> dict:
    return {path.name: path.read_bytes() for path in folder.rglob('*.npy')}


def test_each_frame_is_encoded_once_per_variant_and_stored(segments, tmp_path):
    """A second run over the same episodes encodes only a blank image; other weights encode all."""
    first = CountingVision()
    tokens(tmp_path, first).prepare(segments)
    assert first.images == sum(len(segment.frames) for segment in segments) * 2 * (1 + DRAWS)
    again, other = CountingVision(), CountingVision()
    tokens(tmp_path, again).prepare(segments)
    tokens(tmp_path, other, weights='v').prepare(segments)
    assert (again.images, other.images) == (BLANK, first.images)
    assert not list(tmp_path.rglob('.*'))


@pytest.mark.parametrize(
    'change', [{'light': 0.2}, {'colour': 0.2}, {'shift': 0.2}, {'mirror': False}]
)
def test_the_folder_depends_on_the_augmentation(tmp_path, change):
    """Another augmentation uses another folder."""
    one = tokens(tmp_path, CountingVision())
    assert one.folder == tokens(tmp_path, CountingVision()).folder
    other = tokens(tmp_path, CountingVision(), augmentation=replace(ALL, **change))
    assert one.folder != other.folder


def test_a_new_pipeline_version_encodes_again(tmp_path, monkeypatch):
    """Tokens of an older pipeline are not used."""
    before = tokens(tmp_path, CountingVision()).folder
    monkeypatch.setattr(image_tokens, 'PIPELINE_VERSION', image_tokens.PIPELINE_VERSION + 1)
    assert tokens(tmp_path, CountingVision()).folder != before


def test_variants_do_not_depend_on_when_they_are_computed(segments, tmp_path):
    """Draws depend only on the content of the episode."""
    torch.manual_seed(1)
    tokens(tmp_path / 'a', CountingVision()).prepare(segments)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    tokens(tmp_path / 'b', CountingVision()).prepare(segments[::-1])
    assert torch.equal(torch.get_rng_state(), state)
    assert files(tmp_path / 'a') == files(tmp_path / 'b')


def test_tokens_of_a_mirrored_frame_equal_those_of_the_mirrored_image(segments, tmp_path):
    """Left and right are swapped in each draw; draws differ."""
    one = tokens(tmp_path, CountingVision())
    one.prepare(segments)
    rows = np.arange(1, 4)
    seen = []
    for draw in range(DRAWS + 1):
        plain, mirrored = (one.frames(segments[0], rows, flip, draw) for flip in (False, True))
        torch.testing.assert_close(mirrored, plain.flip(1), atol=2e-3, rtol=1e-3)
        assert plain.shape == (3, 2, 3)
        seen.append(plain)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(seen[a], seen[b], atol=1e-3)


def test_token_items_are_a_function_of_index_and_seed(segments, tmp_path):
    """Every variant is drawn, reproducibly and in any thread; without a seed, none is."""
    kept = tokens(tmp_path, CountingVision())
    kept.prepare(segments)
    instructions = {segment.instruction for segment in segments}
    words = {
        text: torch.zeros(1)
        for text in instructions | {mirror_instruction(text) for text in instructions}
    }
    data = SegmentDataset(segments, ActionSpec(), SPEC, 18, words, ALL, tokens=kept)
    first = [data.item(0, seeded(seed)).frames for seed in range(60)]
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(lambda seed: data.item(0, seeded(seed)).frames, range(60))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({frames.numpy().tobytes() for frames in first}) == len(kept.variants)
    plain = SegmentDataset(segments, ActionSpec(), SPEC, 18, words, tokens=kept)
    assert torch.equal(plain.item(0, seeded(1)).frames, data[0].frames)
    assert torch.equal(
        data[0].frames, kept.frames(segments[0], np.arange(len(data[0].frames)), False, 0)
    )


def numpy_bytes(array, save=np.save) -> bytes:
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    'spoil',
    [
        lambda whole: b'',
        lambda whole: whole[:60],
        lambda whole: whole[:-5],
        lambda whole: b'no such thing',
        lambda whole: bytes(len(whole)),
        lambda whole: numpy_bytes(np.load(io.BytesIO(whole)).astype(np.float32)),
        lambda whole: numpy_bytes(np.load(io.BytesIO(whole))[:, 1:]),
        lambda whole: numpy_bytes(np.load(io.BytesIO(whole))[..., :2]),
        lambda whole: numpy_bytes(np.array([{'a': 1}], object)),
        lambda whole: numpy_bytes(np.zeros(3), np.savez),
    ],
    ids=['empty', 'header', 'cut', 'text', 'zeros', 'dtype', 'frames', 'width', 'pickle', 'npz'],
)
def test_a_torn_or_foreign_token_file_is_computed_again(segments, tmp_path, spoil):
    """A changed file is computed again, and never unpickled."""
    tokens(tmp_path, CountingVision()).prepare(segments[:1])
    (path,) = tmp_path.rglob('*.npy')
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    again = CountingVision()
    kept = tokens(tmp_path, again)
    kept.prepare(segments[:1])
    assert again.images - BLANK in (
        len(segments[0].frames) * 6,
        len(segments[0].frames) * 6 - BLANK,
    )
    assert path.read_bytes() == whole
    assert kept.frames(segments[0], np.arange(2), True, 1).shape == (2, 2, 3)


def test_a_broken_segment_does_not_stop_the_others(segments, broken_segment, tmp_path):
    """Its items name the file and the frame; the others train."""
    gone = replace(segments[1], path=tmp_path / 'gone.h5')
    kept = tokens(tmp_path / 'cache', CountingVision())
    kept.prepare([broken_segment, gone, segments[1]])
    assert len(list(tmp_path.rglob('*.npy'))) == 1
    words = {segment.instruction: torch.zeros(1) for segment in segments}
    data = SegmentDataset(
        [broken_segment, gone, segments[1]], ActionSpec(), SPEC, 1000, words, tokens=kept
    )
    items = [data[index] for index in range(3)]
    assert (
        f'{broken_segment.path} is broken at frame {broken_segment.frames[5]};' in items[0].broken
    )
    assert f'cannot read {gone.path}' in items[1].broken
    assert items[2].broken == '' and items[2].real.any()
    for item in items[:2]:
        assert not item.real.any()
        assert torch.equal(item.frames, kept.blank(len(item.frames)))
    assert collate(items)['broken'] == [items[0].broken, items[1].broken]


def test_an_unwritable_folder_is_an_error(segments, tmp_path):
    """The error names the flag, not the episode."""
    (tmp_path / 'taken').write_text('a file')
    with pytest.raises(UserError, match=r'cannot store image tokens in .*taken.*token_cache'):
        tokens(tmp_path / 'taken', CountingVision()).prepare(segments)


def test_deleted_tokens_break_only_their_items(segments, tmp_path):
    """Deleting the token folder during a run is reported for each item."""
    kept = tokens(tmp_path, CountingVision())
    kept.prepare(segments)
    next(tmp_path.rglob('*.npy')).unlink()
    found = []
    for segment in segments:
        try:
            kept.frames(segment, np.arange(2), False, 0)
        except UserError as error:
            found.append(str(error))
    assert len(found) == 1 and 'broken or missing' in found[0]


def test_training_on_tokens_equals_training_on_images(
    small_run, episode_folder, small_backbone, tmp_path
):
    """Predictions from stored tokens equal those from images."""
    from mobile_vla_ros.model.bundle import load_bundle

    loaded = load_bundle(small_run / 'best')
    spec = loaded.spec
    found, _ = load_segments(find_episodes(episode_folder)[:2], Sampling())
    kept = ImageTokens(loaded.network.image_tokens, 'w', spec.image, Augmentation(), tmp_path)
    kept.prepare(found)
    images, tokens_ = (
        predict(
            loaded.network, policy_dataset(found, spec, loaded.tokenizer, 18, tokens=given)
        ).motion
        for given in (None, kept)
    )
    np.testing.assert_allclose(tokens_, images, atol=2e-3)
    blanks = [
        predict(
            loaded.network,
            policy_dataset(found, spec, loaded.tokenizer, 18, tokens=given, blank_images=True),
        ).motion
        for given in (None, kept)
    ]
    np.testing.assert_allclose(*blanks, atol=1e-5)


def test_tokens_are_computed_without_dropout(episode_folder, small_backbone, tmp_path):
    """A training that starts from a policy stores those that its backbone has."""

    def trained(name, *start):
        flags = ['--lora_scope', 'text', '--epochs', '1', '--batch_size', '18', '--device', 'cpu']
        out = tmp_path / name
        train(
            *parse(['--data', str(episode_folder), '--out', str(out), *start, *flags]),
            log=lambda _: None,
        )
        stored = sorted((out / 'image_tokens').rglob('*.npy'))
        return {path.name: np.load(path) for path in stored}

    head = ('--head_hidden', '16', '--head_layers', '1')
    fresh = trained('fresh', '--backbone', small_backbone, *head)
    later = trained('later', '--init', str(tmp_path / 'fresh' / 'best'))
    assert fresh.keys() == later.keys() and fresh
    for name, tokens in fresh.items():
        np.testing.assert_array_equal(later[name], tokens)


@pytest.mark.parametrize('blank', ['image', 'instruction'])
def test_a_control_is_trained_and_marked(episode_folder, small_backbone, tmp_path, blank):
    """`--blank` is stored in the bundle; without images none is encoded."""
    from mobile_vla_ros.model.policy_spec import read_spec

    train(
        *parse(
            [
                '--data',
                str(episode_folder),
                '--out',
                str(tmp_path / 'run'),
                '--backbone',
                str(small_backbone),
                '--lora_scope',
                'text',
                '--epochs',
                '1',
                '--head_hidden',
                '16',
                '--head_layers',
                '1',
                '--blank',
                blank,
                '--device',
                'cpu',
            ]
        ),
        log=lambda _: None,
    )
    spec = read_spec(tmp_path / 'run' / 'best')
    assert spec.blank == blank
    assert (spec.prompt('go') == '') == (blank == 'instruction')
    assert bool(list((tmp_path / 'run' / 'image_tokens').rglob('*.npy'))) == (blank != 'image')
