"""A policy beside the baselines, and how far it listens to the image and to the instruction."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from mobile_vla_ros.data.augment import Augmentation, mirror_instruction
from mobile_vla_ros.data.dataset import RunDataset, collate
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.runs import Run, Sampling, load_runs, refusals
from mobile_vla_ros.data.split import split_episodes
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import tokenize
from mobile_vla_ros.model.bundle import LoadedPolicy, PolicySpec, load_bundle
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.training.baselines import baselines, targets
from mobile_vla_ros.training.metrics import measure
from mobile_vla_ros.types import ACCEPTED_VERDICTS, ActionSpec

BATCH_PIECES = 4
PIECE_FRAMES = 18


def dataset(runs: Sequence[Run], spec: PolicySpec, tokenizer, piece_frames: int,
            augmentation: Augmentation | None = None, *, blank_images: bool = False,
            tokens: ImageTokens | None = None) -> RunDataset:
    """
    Return runs as a dataset of what a policy's network takes.

    :param blank_images: show the mean colour instead of every image; a control's dataset always
        does.
    :param tokens: image tokens of these runs, computed before.
    """
    said = {run.instruction for run in runs}
    instructions = sorted(said | {mirror_instruction(text) for text in said})
    ids, lengths = tokenize(tokenizer, [spec.prompt(text) for text in instructions])
    words = {text: row[:length] for text, row, length in zip(instructions, ids, lengths,
                                                               strict=True)}
    return RunDataset(runs, spec.actions, spec.image, spec.window, piece_frames, words,
                      augmentation, blank_images=blank_images or spec.blank == 'image',
                      tokens=tokens)


@torch.no_grad()
def predict(network: VlaNetwork, data: RunDataset) -> tuple[np.ndarray, np.ndarray]:
    """
    Return a network's predictions for every window of a dataset, in the order of its runs.

    :returns: motion (M, W, chunk, dims) and gripper logits (M, W, chunk), float32.
    """
    was_training = network.training
    network.eval()
    device = network.action_token.device
    motions, grippers = [], []
    for batch in DataLoader(data, batch_size=BATCH_PIECES, collate_fn=collate):
        dtype = network.kosmos.dtype
        motion, gripper = network(batch['frames'].to(device, dtype), batch['text_ids'].to(device),
                                  batch['text_lengths'].to(device), batch['frame_counts'],
                                  data.window)
        motions.append(motion.float().cpu().numpy())
        grippers.append(gripper.float().cpu().numpy())
    network.train(was_training)
    return np.concatenate(motions), np.concatenate(grippers)


def _change(one: np.ndarray, other: np.ndarray, spec: ActionSpec) -> dict[str, float]:
    """Return the mean absolute change of each axis, in its unit."""
    moved = np.abs(one - other)[..., :len(spec.axes)].mean((0, 1, 2))
    return {axis: float(change * scale)
            for axis, change, scale in zip(spec.axes, moved, spec.scale, strict=True)}


def swap_instructions(runs: Sequence[Run], others: Sequence[Run] = ()) -> list[Run] | None:
    """
    Return the runs, each with another instruction.

    :param others: runs whose instructions may be taken as well.
    :returns: None when there is but one instruction.
    """
    known = sorted({run.instruction for run in [*runs, *others]})
    if len(known) < 2:
        return None
    other = dict(zip(known, known[1:] + known[:1], strict=True))
    return [replace(run, instruction=other[run.instruction]) for run in runs]


def score(policy: LoadedPolicy, train: Sequence[Run], val: Sequence[Run],
          tokens: ImageTokens | None = None) -> dict:
    """
    Measure a policy on validation runs beside the baselines fitted to training runs.

    :param tokens: image tokens of the validation runs, computed before.

    :returns: `baselines`: name to metrics; `policy`: its metrics, `image_blanked` (its metrics
        without the image) and `change`: mean absolute change of each axis, in its unit, when the
        image is blanked and when the instruction is swapped; `better_than`: the baselines that it
        beats in loss.
    """
    spec = policy.spec
    actions, real, _ = targets(val, spec.actions, spec.window)
    result = baseline_scores(train, val, spec.actions, spec.window)
    predicted, _ = predict(policy.network, dataset(val, spec, policy.tokenizer, PIECE_FRAMES,
                                                   tokens=tokens))
    blanked, _ = predict(policy.network, dataset(val, spec, policy.tokenizer, PIECE_FRAMES,
                                                 blank_images=True, tokens=tokens))
    change = {'image_blanked': _change(predicted, blanked, spec.actions)}
    swapped_runs = swap_instructions(val, train)
    if swapped_runs:
        swapped, _ = predict(policy.network,
                             dataset(swapped_runs, spec, policy.tokenizer, PIECE_FRAMES,
                                     tokens=tokens))
        change['instruction_swapped'] = _change(predicted, swapped, spec.actions)
    scored = measure(predicted, actions, real, spec.actions)
    result['policy'] = {
        **scored, 'image_blanked': measure(blanked, actions, real, spec.actions),
        'change': change,
        'better_than': [name for name, entry in result['baselines'].items()
                        if scored['loss'] < entry['loss']]}
    return result


def baseline_scores(train: Sequence[Run], val: Sequence[Run], actions: ActionSpec,
                    window: int) -> dict:
    """Return `baselines`: the metrics of every predictor that sees no image."""
    wanted, real, _ = targets(val, actions, window)
    return {'windows': len(wanted),
            'baselines': {name: measure(prediction, wanted, real, actions)
                          for name, prediction in baselines(train, val, actions, window).items()}}


def split_runs(runs: Sequence[Run], val_share: float, seed: int,
               known: dict | None = None) -> tuple[list[Run], list[Run]]:
    """
    Split runs by episode.

    :param known: a bundle's `data`: where it names episodes of these runs, its split is kept, and
        episodes it does not know validate.
    """
    instructions = {run.episode_id: run.instruction for run in runs}
    trained = set((known or {}).get('train_episodes', [])) & set(instructions)
    if trained and trained != set(instructions):
        train_ids = trained
    else:
        train_ids = set(split_episodes(instructions, val_share, seed)[0])
    return ([run for run in runs if run.episode_id in train_ids],
            [run for run in runs if run.episode_id not in train_ids])


def default_scale(runs: Sequence[Run], axes: Sequence[str]) -> ActionSpec:
    """Return axes scaled by the largest speed that the runs drove, 1.0 where they drove none."""
    unit = ActionSpec(tuple(axes), (1.0,) * len(axes))
    largest = np.max([np.abs(unit.normalise(run.ahead[:, 0])).max(0) for run in runs], axis=0)
    return ActionSpec(unit.axes, tuple(float(value) if value > 0 else 1.0 for value in largest))


def evaluate(data: Path, policy: Path | None, *, sampling: Sampling, axes: Sequence[str],
             val_share: float, split_seed: int, device: str = 'auto', offline: bool = False,
             accept_verdicts: Sequence[str] | None = None) -> dict:
    """
    Evaluate a policy on a folder of takes, or the baselines alone.

    :param sampling: used without a policy; a policy brings its own.
    :param accept_verdicts: verdicts of the takes that are measured on; None: those that the
        policy was trained on, or good and poor.
    :returns: what `score` returns, with the takes that were left out under `skipped`,
        and `rate_hz`, the steps a second.
    """
    paths = find_episodes(data)
    loaded = load_bundle(policy, device=device, offline=offline) if policy else None
    if loaded:
        spec = loaded.spec
        sampling = Sampling(spec.rate_hz, spec.window, spec.chunk, spec.command_max_age_s)
    trained_on = loaded.spec.data.get('accept_verdicts') if loaded else None
    accept_verdicts = accept_verdicts or trained_on or ACCEPTED_VERDICTS
    runs, skipped = load_runs(paths, sampling, accept_verdicts)
    if not runs:
        raise UserError(f'no take in {data} can be used', got=refusals(skipped),
                        expected=f'takes of verdict {" or ".join(accept_verdicts)} with '
                                 f'{sampling.window} frames in a row at {sampling.rate_hz:g} Hz',
                        remedy='record better ones, give another --rate, or take others with '
                               '--accept-verdicts')
    train, val = split_runs(runs, val_share, split_seed, loaded.spec.data if loaded else None)
    if loaded:
        result = score(loaded, train, val)
    else:
        result = baseline_scores(train, val, default_scale(train, axes), sampling.window)
    result['episodes'] = {'train': len({run.episode_id for run in train}),
                          'val': len({run.episode_id for run in val})}
    result['rate_hz'] = sampling.rate_hz
    result['skipped'] = skipped
    return result
