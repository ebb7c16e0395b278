"""What the training is fed with: pieces of runs, whole, in order, the same again."""

import numpy as np
import torch
from made_runs import SPEC, run_of, twists

from mobile_vla_ros.data.augment import Augmentation, mirror_instruction
from mobile_vla_ros.data.dataset import RunDataset
from mobile_vla_ros.data.runs import Sampling, load_runs
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.types import ImageSpec


def test_every_window_is_in_exactly_one_piece():
    """Cutting runs into pieces loses no window and repeats none."""
    run = run_of(twists(np.arange(23) / 100, np.zeros(23)))
    data = RunDataset([run], SPEC, ImageSpec(8, (0, 0, 0), (1, 1, 1)), 4, 9, {})
    covered = [start + i for _, start, stop in data.pieces for i in range(stop - start - 3)]
    assert covered == list(range(20))
    assert max(stop - start for _, start, stop in data.pieces) <= 9


def test_mirrored_pieces_reach_the_training(takes):
    """With `mirror`, about half of the pieces come mirrored in all three; without, none."""
    runs, _ = load_runs(find_episodes(takes)[:1], Sampling())
    said = runs[0].instruction
    words = {said: torch.zeros(1), mirror_instruction(said): torch.zeros(1)}
    data = RunDataset(runs, SPEC, ImageSpec(16, (0, 0, 0), (1, 1, 1)), 4, 18,
                      words, Augmentation(mirror=True))
    plain = RunDataset(runs, SPEC, ImageSpec(16, (0, 0, 0), (1, 1, 1)), 4, 18,
                       words)[0]
    torch.manual_seed(0)
    mirrored = 0
    for _ in range(40):
        item = data[0]
        flipped = torch.equal(item.frames, plain.frames.flip(3))
        assert flipped or torch.equal(item.frames, plain.frames)
        sign = torch.tensor([1.0, -1.0 if flipped else 1.0])
        assert torch.equal(item.actions, plain.actions * sign)
        mirrored += flipped
    assert 10 < mirrored < 30
