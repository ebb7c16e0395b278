"""Load a folder of episodes for training and evaluation: refused by name, split, compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mobile_vla_ros.data.facts import EpisodeFacts
from mobile_vla_ros.data.segments import Sampling, Segment, read_episodes, refusals
from mobile_vla_ros.data.split import Repeats, find_repeats, split_episodes
from mobile_vla_ros.episode.storage.reader import find_episodes
from mobile_vla_ros.episode.timing.command_rule import (
    SETTING,
    CommandRule,
    CommandUse,
    KnownBy,
    total,
)
from mobile_vla_ros.episode.timing.corrections import Takeover
from mobile_vla_ros.errors import UserError

MAX_GROUPS, MAX_NAMES = 3, 2  # that a log line lists
# Baselines fitted to fewer than this share of a policy's training episodes know less than it does.
KNOWN_SHARE = 0.5


@dataclass(frozen=True)
class EpisodeSet:
    """
    A folder of episodes, split by episode.

    :param train: segments of the training side.
    :param val: segments of the validation side.
    :param left_out: by path, why a file has no segments.
    :param repeats: which episodes drive nearly the same commands.
    :param trained_on: whether a policy was trained on all of them; both sides are all of them.
    :param few_known: whether fewer than `KNOWN_SHARE` of a policy's training episodes are here.
    :param takeovers: takeovers of each episode that has any, by its id.
    :param facts: what each readable episode contains, also those that are left out, except what
        somebody excluded.
    :param edits: hash of the edits of each episode that has any, by its id.
    :param unreadable: how many of the files left out cannot be read as episodes.
    """

    train: list[Segment]
    val: list[Segment]
    left_out: dict[str, str]
    repeats: Repeats = field(default_factory=Repeats)
    trained_on: bool = False
    few_known: bool = False
    takeovers: Mapping[str, Sequence[Takeover]] = field(default_factory=dict)
    facts: Sequence[EpisodeFacts] = ()
    edits: Mapping[str, str] = field(default_factory=dict)
    unreadable: int = 0

    @property
    def camera(self) -> str:
        """Name of the camera of all segments; '': the main one."""
        return next(iter(self.train)).camera

    @property
    def near_identical(self) -> list[list[str]]:
        """Groups of ids of episodes that drive nearly the same commands."""
        return self.repeats.groups

    @property
    def leaks(self) -> list[list[str]]:
        """Groups with episodes on both sides."""
        return self.repeats.across(ids(self.train))


def ids(segments: Sequence[Segment]) -> set[str]:
    """Return the episodes of some segments."""
    return {segment.episode_id for segment in segments}


def load_episodes(
    folder: Path,
    sampling: Sampling,
    accept: Sequence[str],
    val_share: float,
    seed: int,
    *,
    known: Mapping[str, Any] | None = None,
    group_duplicates: bool = False,
    images: bool = True,
) -> EpisodeSet:
    """
    Load and split a folder of episodes.

    :param accept: verdicts of the episodes to use.
    :param known: a bundle's `data`. The bundle's training episodes become the training side and
        all others validate. If all episodes are among them, both sides are all of them
        (`trained_on`). If none is, all validate if the bundle has `blind_means`, and are split
        otherwise.
    :param group_duplicates: keep near-identical episodes on one side; with `known`, episodes like
        a training episode do not validate.
    :param images: whether their images will be read too.
    :raises UserError: when no episode or no split is left; says why each episode was refused.
    """
    loaded = read_episodes(find_episodes(folder), sampling, accept, images=images)
    if not loaded.segments:
        raise UserError(
            f'no usable episode in {folder}',
            got=refusals(loaded.skipped),
            expected=f'episodes of verdict {" or ".join(accept)} with '
            f'{sampling.window} consecutive frames at {sampling.rate_hz:g} Hz',
            remedy='record better ones, set another rate (train: --rate_hz, evaluate: --rate), '
            'or accept other verdicts with --accept_verdicts',
        )
    cameras = {segment.camera: segment.episode_id for segment in loaded.segments}
    if len(cameras) > 1:
        raise UserError(
            f'the episodes in {folder} have different cameras {sampling.camera!r}',
            got=', '.join(f'{name} ({one})' for name, one in sorted(cameras.items())),
            remedy='give the whole name of one',
        )
    repeats = find_repeats(loaded.signatures)
    instructions = {segment.episode_id: segment.instruction for segment in loaded.segments}
    named = set((known or {}).get('train_episodes', []))
    trained = named & set(instructions)
    split = partial(
        EpisodeSet,
        left_out=loaded.skipped,
        repeats=repeats,
        takeovers=loaded.takeovers,
        facts=loaded.facts,
        edits=loaded.edits,
        unreadable=loaded.unreadable,
    )
    if trained == set(instructions):
        return split(loaded.segments, loaded.segments, trained_on=True)
    groups = repeats.groups if group_duplicates else []
    if trained or (known or {}).get('blind_means'):
        train_ids = trained.union(*(group for group in groups if trained.intersection(group)))
        if train_ids == set(instructions):
            raise UserError(
                f'every episode in {folder} is nearly identical to a training episode of the '
                'policy',
                expected='episodes that differ',
                remedy='record some, or do not group duplicates',
            )
    elif len(instructions) < 2:
        raise UserError(
            f'too few episodes in {folder} to train and to validate',
            got=f'1: {next(iter(instructions))}'
            + (f'; left out: {refusals(loaded.skipped)}' if loaded.skipped else ''),
            expected='at least 2',
            remedy='record more episodes',
        )
    else:
        train_ids = set(split_episodes(instructions, val_share, seed, groups)[0])
    return split(
        [segment for segment in loaded.segments if segment.episode_id in train_ids],
        [segment for segment in loaded.segments if segment.episode_id not in train_ids],
        few_known=known is not None and (not trained or len(trained) < KNOWN_SHARE * len(named)),
    )


def leak_lines(episodes: EpisodeSet) -> list[str]:
    """Return log lines on episodes that repeat each other, and on repeats across the split."""
    repeats, leaks = episodes.repeats, episodes.leaks
    if not repeats.groups:
        return []
    line = (
        f'{repeats.distinct} distinct sequences of commands in {repeats.driven} episodes that move'
    )
    if not leaks:
        return [f'{line}; near-identical episodes are on one side of the split']
    shown = [
        f'{len(group)} episodes such as {" and ".join(group[:MAX_NAMES])}'
        for group in leaks[:MAX_GROUPS]
    ]
    return [
        f'{line}; {len(leaks)} {"groups" if len(leaks) > 1 else "group"} of near-identical '
        'episodes on both sides of the split, so that validation repeats training data: '
        + '; '.join([*shown, '…'] if len(leaks) > MAX_GROUPS else shown)
        + ' (--group-duplicates keeps them together)'
    ]


def base_record(episodes: EpisodeSet) -> list[dict[str, Any]]:
    """
    Return what the bases do when no command comes, where it matters: a row for each rule.

    Its keys are those of the verdict, and the number of `episodes`.
    """
    return [
        {
            'episodes': count,
            SETTING: use.rule.timeout_s,
            'base_known_by': use.rule.known_by.value,
            'held_share': round(use.held_share, 4),
            'expired_share': round(use.expired_share, 4),
        }
        for count, use in _by_rule(episodes)
    ]


def base_lines(episodes: EpisodeSet) -> list[str]:
    """Return log lines on what the bases do when no command comes, where it matters."""
    return [
        f'{count} {"episodes" if count > 1 else "episode"}: {use.sentence}'
        + (
            '; --command_max_age_s gives the timeout, 0 if the base holds the last command'
            if use.rule.known_by == KnownBy.ASSUMED
            else ''
        )
        for count, use in _by_rule(episodes)
    ]


def _by_rule(episodes: EpisodeSet) -> list[tuple[int, CommandUse]]:
    """Return the number of episodes of each rule and their use, the most frequent first."""
    found: dict[CommandRule, list[CommandUse]] = {}
    used = ids([*episodes.train, *episodes.val])
    for facts in episodes.facts:
        if facts.episode_id in used and facts.use.notable:
            found.setdefault(facts.use.rule, []).append(facts.use)
    return sorted(((len(uses), total(uses)) for uses in found.values()), key=lambda one: -one[0])


def correction_record(episodes: EpisodeSet) -> dict[str, Any]:
    """Return how many training `takes` have takeovers, the `takeovers`, and their `seconds`."""
    corrected = ids(episodes.train) & set(episodes.takeovers)
    found = [takeover for one in corrected for takeover in episodes.takeovers[one]]
    return {
        'takes': len(corrected),  # key in files
        'takeovers': len(found),
        'seconds': round(sum(takeover.seconds for takeover in found), 1),
    }


def correction_lines(episodes: EpisodeSet, weight: float) -> list[str]:
    """
    Return log lines on the corrections in the training episodes.

    :param weight: value of `--corrections`; 0: corrections weigh the same as everything else.
    :raises UserError: when there is a weight but no correction.
    """
    record = correction_record(episodes)
    summary = (
        f'{record["takeovers"]} corrections of {record["seconds"]:g} s in {record["takes"]} of '
        f'{len(ids(episodes.train))} training episodes'
    )
    if not weight:
        unweighted = f'{summary}, weighted like everything else (--corrections)'
        return [unweighted] if record['takeovers'] else []
    if record['takeovers']:
        return [
            f'{summary}: their targets weigh {weight:g} times, those of the policy in the '
            'second before each weigh nothing'
        ]
    elsewhere = len(episodes.takeovers)
    raise UserError(
        'there are no corrections to learn from',
        got=f'--corrections {weight:g} and no takeover in the training episodes'
        + (f'; {elsewhere} validation episodes have some' if elsewhere else ''),
        expected='episodes in which a person took over from a policy',
        remedy='record some with ros2 launch mobile_vla_ros drive.launch.py record:=true, or '
        'leave out --corrections' + (', or choose another --split_seed' if elsewhere else ''),
    )


def repeat_record(episodes: EpisodeSet) -> dict[str, Any]:
    """Return how many `takes` move and are `distinct`, near-identical `groups`, and `across`."""
    return {
        'takes': episodes.repeats.driven,  # key in files
        'distinct': episodes.repeats.distinct,
        'groups': episodes.near_identical,
        'across': episodes.leaks,
    }


def split_record(
    episodes: EpisodeSet, *, val_share: float, seed: int, group_duplicates: bool
) -> dict[str, Any]:
    """Return what a bundle stores of the split: its settings, and the groups `across` it."""
    record = repeat_record(episodes)
    del record['groups']
    return {'seed': seed, 'val_share': val_share, 'group_duplicates': group_duplicates, **record}
