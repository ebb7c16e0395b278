"""Takes as training and evaluation use them: loaded, refused by name, and split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_vla_ros.data.runs import Run, Sampling, load_runs, refusals
from mobile_vla_ros.data.split import split_episodes
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec


@dataclass(frozen=True)
class Takes:
    """
    A folder of takes, split by episode.

    :param train: runs of the training side.
    :param val: runs of the validation side.
    :param left_out: for every file that gives no run, why.
    """

    train: list[Run]
    val: list[Run]
    left_out: dict[str, str]


def load_takes(folder: Path, sampling: Sampling, accept: Sequence[str], val_share: float,
               seed: int, *, known: dict | None = None) -> Takes:
    """
    Load and split a folder of takes.

    :param accept: verdicts of the takes that are used.
    :param known: a bundle's `data`, whose split is kept (`split_runs`).
    :raises UserError: when no take is left; the sentence says why each was refused.
    """
    runs, left_out = load_runs(find_episodes(folder), sampling, accept)
    if not runs:
        raise UserError(f'no take in {folder} can be used', got=refusals(left_out),
                        expected=f'takes of verdict {" or ".join(accept)} with '
                                 f'{sampling.window} frames in a row at {sampling.rate_hz:g} Hz',
                        remedy='record better ones, give another rate (train: --rate_hz, '
                               'evaluate: --rate), or take others with --accept_verdicts')
    return Takes(*split_runs(runs, val_share, seed, known), left_out)


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
