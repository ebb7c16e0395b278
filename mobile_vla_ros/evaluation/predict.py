"""The dataset of a policy, and its predicted chunks for every window of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from mobile_vla_ros.data.augment import Augmentation, mirror_instruction
from mobile_vla_ros.data.dataset import SegmentDataset
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.order import Feed
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.model.backbone import Tokenizer, tokenize
from mobile_vla_ros.model.network import VlaNetwork, evaluating
from mobile_vla_ros.model.policy_spec import PolicySpec

BATCH_PIECES = 4
PIECE_FRAMES = 18


@dataclass(frozen=True)
class Predictions:
    """
    Predictions for M windows, in the order of the segments.

    :param motion: (M, window, chunk, dims) float32, normalised.
    :param gripper: (M, window, chunk) float32 logits of the reference run's gripper dummy.
    :param real: (M, window, chunk) bool: steps inside the episode with readable frames.
    :param broken: errors that name the unreadable frames.
    """

    motion: np.ndarray
    gripper: np.ndarray
    real: np.ndarray
    broken: list[str] = field(default_factory=list)


def policy_dataset(
    segments: Sequence[Segment],
    spec: PolicySpec,
    tokenizer: Tokenizer,
    piece_frames: int,
    augmentation: Augmentation | None = None,
    *,
    blank_images: bool = False,
    tokens: ImageTokens | None = None,
    idle_keep: float = 1.0,
    cache: FrameCache | None = None,
    corrections: float = 0.0,
) -> SegmentDataset:
    """
    Return segments as a dataset for a policy's network, to train on or to predict.

    :param blank_images: replace every image by the mean colour; a control trained without images
        always does.

    See `SegmentDataset` for the others.
    """
    given = {segment.instruction for segment in segments}
    instructions = sorted(given | {mirror_instruction(text) for text in given})
    ids, lengths = tokenize(tokenizer, [spec.prompt(text) for text in instructions])
    text_ids = {
        text: row[:length] for text, row, length in zip(instructions, ids, lengths, strict=True)
    }
    return SegmentDataset(
        segments,
        spec.actions,
        spec.image,
        piece_frames,
        text_ids,
        augmentation,
        blank_images=blank_images or spec.blank == 'image',
        tokens=tokens,
        idle_keep=idle_keep,
        cache=cache,
        corrections=corrections,
    )


@torch.no_grad()
def predict(
    network: VlaNetwork,
    data: SegmentDataset,
    *,
    workers: int = 1,
    accelerator: Accelerator | None = None,
) -> Predictions:
    """
    Return a network's predictions for every window of a dataset.

    :param workers: threads that prefetch batches.
    :param accelerator: shares the work among its processes; each returns all predictions.
    """
    process, processes = (
        (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    )
    device = network.action_token.device
    pieces = [
        list(range(start, min(start + BATCH_PIECES, len(data))))
        for start in range(0, len(data), BATCH_PIECES)
    ]
    mine = range(process, len(pieces), processes)
    found = []
    feed = Feed(data, workers, time.perf_counter)
    with evaluating(network):
        for number, batch in zip(mine, feed.batches([pieces[i] for i in mine]), strict=True):
            motion, gripper = network(
                batch['frames'].to(device),
                batch['text_ids'].to(device),
                batch['text_lengths'].to(device),
                batch['frame_counts'],
                batch['windows'].to(device),
            )
            found.append(
                (
                    number,
                    motion.float().cpu().numpy(),
                    gripper.float().cpu().numpy(),
                    batch['real'].numpy(),
                    batch['broken'],
                )
            )
    if processes > 1:
        found = sorted(gather_object(found), key=lambda one: one[0])
    _, motions, grippers, real, broken = zip(*found, strict=True)
    return Predictions(
        np.concatenate(motions),
        np.concatenate(grippers),
        np.concatenate(real),
        sorted({sentence for some in broken for sentence in some}),
    )
