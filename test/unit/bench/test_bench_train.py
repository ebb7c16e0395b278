"""`mobile_vla bench train`: equal numbers at less cost, and the promises of each part."""

import numpy as np
import pytest
import torch

from command_line import bench_figures
from made_segments import sliding
from mobile_vla_ros.bench.table import at_least
from mobile_vla_ros.bench.train.encodes import by_windows, difference
from mobile_vla_ros.bench.train.feed import decoding
from mobile_vla_ros.bench.train.memory import cards
from mobile_vla_ros.model.backbone import LoraSettings, load_backbone, tokenize
from mobile_vla_ros.model.network import build_network
from small_backbone import without_dropout

WINDOW = 4
# The run takes a minute on an idle machine, and several on a loaded one.
TIMEOUT_S = 900


def whole_benchmark(test):
    return pytest.mark.exhaustive(pytest.mark.timeout(TIMEOUT_S)(test))


@pytest.fixture
def network_and_batch(small_backbone, tmp_path):
    """A small network with non-zero adapters, and a batch of two pieces of different lengths."""
    torch.manual_seed(1)
    backbone = load_backbone(without_dropout(small_backbone, tmp_path / 'backbone'))
    network = build_network(
        backbone, LoraSettings(4, 8, 0.0), motion_dims=3, chunk=5, hidden=16, layers=2
    ).train()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(0, 0.05)
    ids, lengths = tokenize(backbone.tokenizer, ['go to the red box', 'go'])
    counts = [9, 6]
    windows = np.vstack([sliding(9, WINDOW), sliding(6, WINDOW, 9)])
    return network, {
        'frames': torch.randn(sum(counts), 3, 56, 56),
        'text_ids': ids,
        'text_lengths': lengths,
        'frame_counts': counts,
        'windows': torch.from_numpy(windows),
        'actions': torch.randn(len(windows), WINDOW, 5, 2),
        'real': torch.rand(len(windows), WINDOW, 5) < 0.8,
    }


def test_loss_and_gradients_equal_those_of_training_window_by_window(network_and_batch):
    """Encoding a frame once changes nothing: loss and every gradient agree to 1e-5."""
    found = difference(*network_and_batch)
    assert found.loss <= 1e-5
    assert found.gradient <= 1e-5, found.tensor


def test_another_frame_in_a_window_would_be_found(network_and_batch):
    """Swapped frames change the gradients a hundred times more than the tolerance."""
    network, batch = network_and_batch
    shuffled = {**batch, 'frames': batch['frames'].roll(1, 0)}
    found = []
    for frames in (batch, shuffled):
        network.zero_grad()
        by_windows(network, frames).backward()
        found.append(network.action_token.grad.clone())
    assert (found[0] - found[1]).norm() > 1e-3 * found[0].norm()


@pytest.fixture(scope='module')
def measured() -> dict[tuple[str, str], dict]:
    """One run of every part but the full size, as short as possible: (part, name) → figure."""
    parts = ('--takes', 1, '--turns', 1, '--batches', 1)
    return bench_figures('train', *parts, timeout_s=TIMEOUT_S - 20, OMP_NUM_THREADS='1')


@whole_benchmark
def test_frames_are_encoded_once_with_the_same_numbers(measured):
    """At least 3 times fewer for 18 frames: 15 windows of 4."""
    assert measured['encodes', 'frames encoded, each frame once']['value'] == 18
    assert measured['encodes', 'frames encoded, window by window']['value'] == 60
    assert measured['encodes', 'fewer frames encoded']['kept']
    for kind in ('float32', 'float64'):
        for what in ('loss', 'gradients'):
            figure = measured['encodes', f'{what}, largest relative difference ({kind})']
            assert figure['kept'], figure
    assert measured['encodes', 'time, window by window against once']['value'] > 0
    once_mb, windows_mb = (
        measured['encodes', f'saved for the backward pass, {name}']['value']
        for name in ('each frame once', 'window by window')
    )
    assert windows_mb == pytest.approx(once_mb * 60 / 18, rel=0.1)


@whole_benchmark
def test_stored_image_tokens_are_not_computed_again(measured):
    """Neither in an epoch nor by the next run."""
    for name in (
        'frames encoded by a second run',
        'frames encoded in an epoch, from cached image tokens',
    ):
        assert measured['tokens', name]['kept']
    assert measured['tokens', 'frames encoded in an epoch, from images']['value'] == 18
    assert measured['tokens', 'time, from images against from cached tokens']['value'] > 0


def test_a_reduced_scale_gives_nearly_the_same_image():
    """At 224 px pixels differ by less than one grey level on average."""
    measured = {one.name: one.value for one in decoding(turns=1)}
    assert measured['time, whole against reduced'] > 0
    assert measured['difference at 224 px, mean'] < 1


@whole_benchmark
def test_the_loop_reports_its_waiting_time(measured):
    """As a share of the epoch's time, with the number of frames."""
    assert measured['loader', 'frames of 1280x720 decoded and encoded']['value'] >= 18
    share = measured['loader', 'share of the time spent waiting for data']
    assert 0 <= share['value'] < 0.9  # one piece is read before the first step
    assert share['kept'] == (share['value'] <= 0.05)


@whole_benchmark
def test_counted_memory_is_plausible_at_full_size_and_correct_at_a_small_one(measured):
    """For batch 1 of the real architecture; a small process grows by about the counted size."""
    found = {name: one['value'] for (part, name), one in measured.items() if part == 'memory'}
    assert found['of batch 1: weights'] == pytest.approx(1.664 * 2 + 0.057 * 4, abs=0.05)
    assert found['of batch 1: AdamW'] == pytest.approx(0.057 * 8, abs=0.01)
    assert 3 < found['bf16, batch 1, activation checkpointing'] < 8
    assert found['bf16, batch 1'] > 15
    # config/train_seed.yaml, on the card of 24 GB that the reference run had.
    recipe = found['fp16 over float32 weights, batch 1, activation checkpointing']
    assert recipe * 1.15 + 1 < 24 < found['fp16 over float32 weights, batch 1']
    small = 'builtin:tiny, bf16, activation checkpointing: relative error of the count'
    if (off := found.get(small)) is not None:
        assert off < 0.5  # other processes influence it; the benchmark promises a tenth
    if held := measured.get(
        ('encodes', 'process growth after the forward pass, window by window')
    ):
        kept = measured['encodes', 'saved for the backward pass, window by window']['value']
        assert held['value'] == pytest.approx(kept, rel=0.5)


def test_cards_are_named_with_a_margin():
    """15 % and 1 GB above the counted size."""
    assert cards(6_000_000_000) == 'fits 8 GB'
    assert cards(6_200_000_000) == 'fits 16 GB'
    assert cards(90_000_000_000) == 'does not fit 80 GB'


def test_a_promise_may_be_a_minimum():
    """Kept at its limit and broken below."""
    assert [at_least('a', 'b', value, 3.0).kept for value in (2.9, 3.0)] == [False, True]
