"""Takes as training and evaluation use them: loaded, refused by name, split, and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_vla_ros.data.near_identical import Repeats, find_repeats
from mobile_vla_ros.data.runs import Run, Sampling, read_takes, refusals
from mobile_vla_ros.data.split import split_episodes
from mobile_vla_ros.episode.storage.reader import find_episodes
from mobile_vla_ros.episode.timing.corrections import Takeover
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import TWIST_AXES, ActionSpec

MOST_GROUPS, MOST_NAMES = 3, 2  # that a line tells of
# Of the takes that a policy was trained on: fewer say little of what predictors knew beside it.
KNOWN_SHARE = 0.5


@dataclass(frozen=True)
class Takes:
    """
    A folder of takes, split by episode.

    :param train: runs of the training side.
    :param val: runs of the validation side.
    :param left_out: for every file that gives no run, why.
    :param repeats: which of the takes drive nearly the same commands.
    :param trained_on: a policy was trained on all of them, so that both sides are all of them.
    :param few_known: of the takes that a policy was trained on, fewer than `KNOWN_SHARE` are here.
    :param takeovers: of each take in which a person took over from a policy, by its id.
    """

    train: list[Run]
    val: list[Run]
    left_out: dict[str, str]
    repeats: Repeats = field(default_factory=Repeats)
    trained_on: bool = False
    few_known: bool = False
    takeovers: Mapping[str, Sequence[Takeover]] = field(default_factory=dict)

    @property
    def near_identical(self) -> list[list[str]]:
        """Groups of ids of takes that drive nearly the same commands."""
        return self.repeats.groups

    @property
    def leaks(self) -> list[list[str]]:
        """The groups that have takes on both sides."""
        return self.repeats.across({run.episode_id for run in self.train})


def load_takes(
    folder: Path,
    sampling: Sampling,
    accept: Sequence[str],
    val_share: float,
    seed: int,
    *,
    known: dict | None = None,
    group_duplicates: bool = False,
) -> Takes:
    """
    Load and split a folder of takes.

    :param accept: verdicts of the takes that are used.
    :param known: a bundle's `data`. Where it names training takes that are here, they are the
        training side and all others validate; where all are, they are both sides (`trained_on`);
        where none are, all validate if it has `blind_means`, and are split if it has not.
    :param group_duplicates: keep near-identical takes on one side; with `known`, takes like one
        that was trained on do not validate.
    :raises UserError: when no take is left, or no split; the sentence says why each take was
        refused.
    """
    loaded = read_takes(find_episodes(folder), sampling, accept)
    if not loaded.runs:
        raise UserError(
            f'no take in {folder} can be used',
            got=refusals(loaded.skipped),
            expected=f'takes of verdict {" or ".join(accept)} with '
            f'{sampling.window} frames in a row at {sampling.rate_hz:g} Hz',
            remedy='record better ones, give another rate (train: --rate_hz, '
            'evaluate: --rate), or take others with --accept_verdicts',
        )
    repeats = find_repeats(loaded.signatures)
    instructions = {run.episode_id: run.instruction for run in loaded.runs}
    named = set((known or {}).get('train_episodes', []))
    trained = named & set(instructions)
    if trained == set(instructions):
        return Takes(
            loaded.runs,
            loaded.runs,
            loaded.skipped,
            repeats,
            trained_on=True,
            takeovers=loaded.takeovers,
        )
    groups = repeats.groups if group_duplicates else []
    if trained or (known or {}).get('blind_means'):
        train_ids = trained.union(*(group for group in groups if trained.intersection(group)))
        if train_ids == set(instructions):
            raise UserError(
                f'every take in {folder} is nearly the same as one that the policy was trained on',
                expected='takes that differ',
                remedy='record some, or do not group duplicates',
            )
    elif len(instructions) < 2:
        raise UserError(
            f'too few takes in {folder} to train and to validate',
            got=f'1: {next(iter(instructions))}'
            + (f'; left out: {refusals(loaded.skipped)}' if loaded.skipped else ''),
            expected='at least 2',
            remedy='record more takes',
        )
    else:
        train_ids = set(split_episodes(instructions, val_share, seed, groups)[0])
    return Takes(
        [run for run in loaded.runs if run.episode_id in train_ids],
        [run for run in loaded.runs if run.episode_id not in train_ids],
        loaded.skipped,
        repeats,
        few_known=known is not None and (not trained or len(trained) < KNOWN_SHARE * len(named)),
        takeovers=loaded.takeovers,
    )


def leak_lines(takes: Takes) -> list[str]:
    """Say which takes repeat each other, and which of them lie on both sides of the split."""
    repeats, leaks = takes.repeats, takes.leaks
    if not repeats.groups:
        return []
    line = f'{repeats.distinct} distinct sequences of commands in {repeats.driven} takes that move'
    if not leaks:
        return [f'{line}; takes that are alike lie on one side of the split']
    shown = [
        f'{len(group)} takes such as {" and ".join(group[:MOST_NAMES])}'
        for group in leaks[:MOST_GROUPS]
    ]
    return [
        f'{line}; {len(leaks)} {"groups" if len(leaks) > 1 else "group"} of near-identical '
        'takes on both sides of the split, so that what validates was trained on as well: '
        + '; '.join([*shown, '…'] if len(leaks) > MOST_GROUPS else shown)
        + ' (--group-duplicates keeps them together)'
    ]


def corrected(takes: Takes) -> dict:
    """Return of the training side how many `takes` have takeovers, how many, and `seconds`."""
    ids = {run.episode_id for run in takes.train} & set(takes.takeovers)
    found = [takeover for one in ids for takeover in takes.takeovers[one]]
    return {
        'takes': len(ids),
        'takeovers': len(found),
        'seconds': round(sum(takeover.seconds for takeover in found), 1),
    }


def correction_lines(takes: Takes, weight: float) -> list[str]:
    """
    Say what corrections there are to learn from.

    :param weight: of `--corrections`; 0: they weigh as everything else, and are named if there.
    :raises UserError: when they are to weigh more and there are none to learn from.
    """
    known = corrected(takes)
    words = (
        f'{known["takeovers"]} corrections of {known["seconds"]:g} s in {known["takes"]} of '
        f'{len({run.episode_id for run in takes.train})} training takes'
    )
    if not weight:
        return [f'{words}, weighed as all else (--corrections)'] if known['takeovers'] else []
    if known['takeovers']:
        return [
            f'{words}: their targets weigh {weight:g} times, those of the policy in the '
            'second before each nothing'
        ]
    elsewhere = len(takes.takeovers)
    raise UserError(
        'there are no corrections to learn from',
        got=f'--corrections {weight:g} and no takeover in the training takes'
        + (f'; {elsewhere} takes that validate have some' if elsewhere else ''),
        expected='takes recorded while a policy drove and a person took over',
        remedy='record some with ros2 launch mobile_vla_ros drive.launch.py record:=true, or '
        'leave out --corrections' + (', or give another --split_seed' if elsewhere else ''),
    )


def repeat_record(takes: Takes) -> dict:
    """Return `takes` that move, `distinct` ones of them, `groups` alike, and those `across`."""
    return {
        'takes': takes.repeats.driven,
        'distinct': takes.repeats.distinct,
        'groups': takes.near_identical,
        'across': takes.leaks,
    }


def split_record(takes: Takes, *, val_share: float, seed: int, group_duplicates: bool) -> dict:
    """Return what a bundle says of its split: how it was made, and the groups `across` it."""
    record = repeat_record(takes)
    del record['groups']
    return {'seed': seed, 'val_share': val_share, 'group_duplicates': group_duplicates, **record}


def default_scale(runs: Sequence[Run], axes: Sequence[str]) -> ActionSpec:
    """
    Return axes scaled by the largest speed that the runs drove, 1.0 where they drove none.

    :param runs: of the training side alone: what validates sets no scale.
    :raises UserError: when they drive none of the axes.
    """
    spec = ActionSpec(tuple(axes), (1.0,) * len(axes))
    largest = _largest(runs)[spec.columns]
    if not largest.any():
        raise UserError(
            f'the robot is never told to move along {" or ".join(axes)}',
            got=f'{len({run.episode_id for run in runs})} training takes of zeros there',
            expected='takes that drive',
            remedy=_other_axes(runs, axes) or 'record some',
        )
    return ActionSpec(spec.axes, tuple(float(value) if value > 0 else 1.0 for value in largest))


def still_lines(runs: Sequence[Run], axes: Sequence[str]) -> list[str]:
    """Say which axes some runs never drive, and which ones they do."""
    largest = dict(zip(TWIST_AXES, _largest(runs), strict=True))
    remedy = _other_axes(runs, axes)
    return [
        f'{axis} is zero in every training take: its numbers mean nothing'
        + (f'; {remedy}' if remedy else '')
        for axis in axes
        if not largest[axis]
    ]


def _largest(runs: Sequence[Run]) -> np.ndarray:
    """Return (6,) the largest speed of each column of the twist."""
    return np.max([np.abs(run.ahead[:, 0]).max(0) for run in runs], axis=0)


def _other_axes(runs: Sequence[Run], axes: Sequence[str]) -> str | None:
    """Return the advice to drive the axes that move instead, None where it would not help."""
    moving = [axis for axis, speed in zip(TWIST_AXES, _largest(runs), strict=True) if speed]
    if not set(moving) - set(axes):
        return None
    return f'these takes drive {", ".join(moving)}: --axes {" ".join(moving)}'
