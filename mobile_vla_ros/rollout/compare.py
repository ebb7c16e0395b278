"""Several policies in the same scenes, in pairs and beside their controls."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.drivers import EXPERT, read_policy
from mobile_vla_ros.rollout.paired import holm, mean_interval, rate_interval, sign_test
from mobile_vla_ros.rollout.simulation import Settings, Simulation
from mobile_vla_ros.rollout.trials import Trial, mean_of, spl, summarise
from mobile_vla_ros.sim import suites
from mobile_vla_ros.types import BLANKS

ALPHA = 0.05


@dataclass
class Driver:
    """
    A policy, or its control.

    :param name: of the policy, as given.
    :param control: '', `image` or `instruction`: what it drives without.
    :param driven: suite to its trials.
    """

    name: str
    control: str = ''
    driven: dict[str, list[Trial]] = field(default_factory=dict)

    @property
    def policy(self) -> str | None:
        """The policy; None: the expert."""
        return None if self.name == EXPERT else self.name

    @property
    def folder(self) -> str:
        """The name of the folder of its trials."""
        name = re.sub(r'[^\w.-]+', '_', self.name).strip('_.')
        return f'{name}_no_{self.control}' if self.control else name

    @property
    def label(self) -> str:
        """Its name for people."""
        return f'{self.name} without {self.control}' if self.control else self.name


def drivers(names: Sequence[str]) -> list[Driver]:
    """
    Return each policy, followed by its controls.

    :raises UserError: for a policy that the arena cannot drive.
    """
    found = []
    for name in names:
        one = Driver(name)
        blind = one.policy is None or read_policy(one.policy).blank
        found += [one, *(Driver(name, blank) for blank in BLANKS if blank and not blind)]
    folders = [one.folder for one in found]
    for one in found:
        if folders.count(one.folder) > 1:
            raise UserError(
                'two policies would have the same folder of trials',
                got=', '.join(two.label for two in found if two.folder == one.folder),
                remedy='name each once, or give one of them by another path',
            )
    return found


def drive(
    those: Sequence[Driver],
    names: Sequence[str],
    settings: Settings,
    say: Callable[[str], object],
) -> None:
    """
    Let every driver drive the same scenes.

    :param settings: of all of them; with ``out``, a folder for each is there, with the files of
        `mobile_vla simulate --out`, and an interrupted run goes on.
    :param say: called with the name of each before it drives.
    :raises UserError: as `Simulation`.
    """
    for one in those:
        say(one.label)
        out = settings.out and settings.out / one.folder
        own = replace(settings, policy=one.policy, control=one.control, out=out)
        with Simulation(own, names) as simulation:
            for name in names:
                one.driven[name], _ = simulation.drive(name)


def result(those: Sequence[Driver]) -> dict[str, Any]:
    """
    Return the comparison as plain values.

    :returns: ``drivers``: name, control, and the summary of each suite (`trials.summarise`,
        without single outcomes); ``pairs``: each policy ``b`` against each ``a`` before it
        (`against`), with ``p_holm``, raised for the number of pairs; ``controls``: likewise each
        policy against itself without an input, and whether it ``uses`` that.
    """
    policies = [one for one in those if not one.control]
    pairs = [row for a, b in itertools.combinations(policies, 2) for row in against(a, b)]
    for row, p in zip(pairs, holm([row['p'] for row in pairs]), strict=True):
        row['p_holm'] = p
    controls = []
    for policy, control in zip(_owners(those), those, strict=True):
        if control.control:
            controls += [
                {**row, 'uses': row['p'] < ALPHA and row['only_b'] > row['only_a']}
                for row in against(control, policy)
            ]
    return {
        'suites_version': suites.VERSION,
        'drivers': [
            {
                'name': one.name,
                'control': one.control,
                'suites': {name: _summary(name, trials) for name, trials in one.driven.items()},
            }
            for one in those
        ],
        'pairs': pairs,
        'controls': controls,
    }


def _owners(those: Sequence[Driver]) -> Iterator[Driver]:
    """Yield for each driver the policy that it is a control of, or itself."""
    policy = those[0]
    for one in those:
        policy = policy if one.control else one
        yield policy


def _summary(suite: str, trials: Sequence[Trial]) -> dict:
    summary = summarise(suite, trials)
    del summary['outcomes']
    return summary


def against(a: Driver, b: Driver) -> list[dict[str, Any]]:
    """
    Compare two drivers, suite by suite, in the scenes that both drove.

    :returns: for each suite: names ``a`` and ``b``, ``trials``; how many only one of them drove
        well, and ``p`` of that (`sign_test`); and how much more b has of each of ``success``,
        ``collision`` (shares), ``spl``, ``time_s`` (of trials that both drive well) and
        ``change_mps2``: value, 95 % ``interval`` (None of few trials) and number of ``trials``.
    """
    rows = []
    for suite, ours in a.driven.items():
        pairs = list(zip(ours, b.driven[suite], strict=True))
        goods = [(one.success, other.success) for one, other in pairs]
        only_a, only_b = goods.count((True, False)), goods.count((False, True))
        bad = [(one.collision, other.collision) for one, other in pairs]
        hit_a, hit_b = bad.count((True, False)), bad.count((False, True))
        rows.append(
            {
                'suite': suite,
                'a': a.label,
                'b': b.label,
                'trials': len(pairs),
                'only_a': only_a,
                'only_b': only_b,
                'p': sign_test(only_a, only_b),
                'more': {
                    'success': _share(only_a, only_b, len(pairs)),
                    'collision': _share(hit_a, hit_b, len(pairs)),
                    **{
                        name: _mean([(of(one), of(other)) for one, other in pairs])
                        for name, of in (('spl', _spl), ('change_mps2', _change))
                    },
                    'time_s': _mean(
                        [
                            (_time(one), _time(other))
                            for (one, other), good in zip(pairs, goods, strict=True)
                            if all(good)
                        ]
                    ),
                },
            }
        )
    return rows


def _share(only_a: int, only_b: int, pairs: int) -> dict[str, Any]:
    return {
        'value': (only_b - only_a) / pairs,
        'interval': rate_interval(only_a, only_b, pairs),
        'trials': pairs,
    }


def _mean(values: Sequence[tuple[float | None, float | None]]) -> dict[str, Any] | None:
    more = [b - a for a, b in values if a is not None and b is not None]
    if not more:
        return None
    return {'value': mean(more), 'interval': mean_interval(more), 'trials': len(more)}


def _time(trial: Trial) -> float:
    return mean(drive.elapsed_s for drive in trial.drives)


def _spl(trial: Trial) -> float | None:
    return spl(trial.drives)


def _change(trial: Trial) -> float | None:
    return mean_of([drive.change_mps2 for drive in trial.drives])


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """Return what the comparison shows, and what it does not, a sentence each."""
    sentences = []
    for row in found['pairs']:
        better, worse = (
            (row['b'], row['a']) if row['only_b'] > row['only_a'] else (row['a'], row['b'])
        )
        shown = row['p_holm'] < ALPHA
        sentences.append(
            f'{row["suite"]}: '
            + (
                f'{better} drives better than {worse}'
                if shown
                else f'no difference shown between {row["a"]} and {row["b"]}'
            )
            + f' (only {row["a"]}: {row["only_a"]}, only {row["b"]}: {row["only_b"]} of '
            f'{row["trials"]} trials; p {row["p_holm"]:.2g})'
        )
    sentences += [
        f'{row["suite"]}: {row["b"]} is not shown to drive better than {row["a"]} '
        f'(p {row["p"]:.2g}): it may not use that input here'
        for row in found['controls']
        if not row['uses']
    ]
    return sentences
