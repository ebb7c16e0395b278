"""Whether a policy drives as well with int8 weights, and the bundle that has the proof."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.bundle import check_new, copy_bundle
from mobile_vla_ros.model.device import INT8, pick_precision
from mobile_vla_ros.model.golden import read_golden
from mobile_vla_ros.model.packing import quantise
from mobile_vla_ros.rollout.drivers import policy_driver, read_policy
from mobile_vla_ros.rollout.paired import Z_ONE_SIDED, most_worse
from mobile_vla_ros.rollout.simulation import Settings, Simulation, named
from mobile_vla_ros.rollout.trials import Trial
from mobile_vla_ros.runtime.golden_check import check_golden
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.sim import suites

MARGIN = 0.02  # of the success rate
MIN_SUCCESS = 0.5  # where all fail, nobody sees a difference


def prove(settings: Settings, suite: str, out: Path) -> tuple[bool, dict[str, Any]]:
    """
    Drive each scene with and without int8 weights; write a bundle with the proof if it is one.

    The trials are kept in `OUT_trials`, where an interrupted run continues.

    :param settings: the policy and its trials; its precision is the one to compare with.
    :param out: the new bundle: the same weights, golden frames and backbone.
    :returns: whether int8 is at most `MARGIN` worse at 95 %, and the proof: the sentence of its
        `golden` frames; what it was `compared_with`; `suite`, its version, `first_trial` and
        `trials`; how many of them only one of the two drove well: int8 `worse`, `better`;
        `successes` of both, int8 last; `at_most_worse`, the bound; `bytes` of the weights in
        bfloat16 and int8; and where it was measured.
    :raises UserError: when nothing can be shown: `out` exists, too few trials, a policy without
        golden frames, that does not reproduce them in int8, or that the arena cannot drive.
    """
    assert settings.policy is not None, 'a policy to quantise'
    check_new(out)
    read_policy(settings.policy)
    other = pick_precision(settings.precision, settings.device)
    fewest = math.ceil(Z_ONE_SIDED**2 * (1 - MARGIN) / MARGIN)
    if settings.trials < fewest or other == INT8:
        raise UserError(
            f'this cannot show that int8 is at most {MARGIN:.0%} worse',
            got=f'{settings.trials} trials beside {other}',
            expected=f'at least {fewest} trials, if no two differ, beside fp32, bf16 or fp16',
        )
    policy = VlaPolicy.load(
        settings.policy,
        device=settings.device,
        dtype=torch.bfloat16,
        offline=settings.offline,
        backbone=settings.backbone,
    )
    sizes = [policy.weight_bytes]
    quantise(policy.network.kosmos)
    sizes.append(policy.weight_bytes)
    ok, sentence = check_golden(policy, read_golden(settings.policy), INT8)
    if not ok:
        raise UserError(f'the policy {settings.policy} cannot drive in int8: {sentence}')
    (suite,) = named([suite], settings.policy)
    kept = out.with_name(f'{out.name}_trials')
    driven: list[list[Trial]] = []
    for precision, driver in ((other, None), (INT8, policy_driver(policy))):
        one = replace(settings, precision=precision, out=kept / precision)
        with Simulation(one, [suite], driver) as simulation:
            driven.append(simulation.drive(suite)[0])
    pairs = [(before.success, after.success) for before, after in zip(*driven, strict=True)]
    good = sum(before for before, _ in pairs)
    if good < len(pairs) * MIN_SUCCESS:
        raise UserError(
            f'trials of {suite} cannot show that int8 is as good',
            got=f'{good} of {len(pairs)} succeed in {other}',
            expected=f'at least {MIN_SUCCESS:.0%}',
            remedy='choose a --suite that the policy drives well',
        )
    worse, better = pairs.count((True, False)), pairs.count((False, True))
    bound = most_worse(worse, better, len(pairs))
    proof = {
        'golden': sentence,
        'compared_with': other,
        'suite': suite,
        'suites_version': suites.VERSION,
        'first_trial': settings.seed,
        'trials': len(pairs),
        'successes': [good, sum(after for _, after in pairs)],
        'worse': worse,
        'better': better,
        'at_most_worse': round(bound, 4),
        'bytes': sizes,
        'device': str(policy.device),
        'torch': torch.__version__,
    }
    if bound > MARGIN:
        return False, proof
    copy_bundle(settings.policy, out, replace(policy.spec, int8=proof))
    return True, proof


def words(proof: dict[str, Any], out: Path | None) -> str:
    """
    Return the result of `prove` for people.

    :param out: the bundle, None if it was not written.
    """
    before, after = proof['bytes']
    other, (without, with_int8) = proof['compared_with'], proof['successes']
    lines = (
        proof['golden'],
        f'weights: {after / 1e6:.1f} MB, {after / before:.2f} of bfloat16',
        f'{proof["trials"]} trials of {proof["suite"]}: {with_int8} succeed in int8, {without} in '
        f'{other}; {proof["better"]} only in int8, {proof["worse"]} only in {other}',
        f'at 95 % int8 is at most {100 * proof["at_most_worse"]:.1f} points worse; '
        f'{100 * MARGIN:g} are allowed',
        f'policy: {out}' if out else 'not shown: no policy; more --trials continue these',
    )
    return '\n'.join(lines)
