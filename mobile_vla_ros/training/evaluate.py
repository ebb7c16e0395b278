"""A policy beside the baselines, and how far it listens to the image and to the instruction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.runs import Run, Sampling
from mobile_vla_ros.model.bundle import LoadedPolicy, load_bundle
from mobile_vla_ros.training.baselines import baselines, targets
from mobile_vla_ros.training.metrics import measure
from mobile_vla_ros.training.predict import PIECE_FRAMES, Predictions, dataset, predict
from mobile_vla_ros.training.takes import default_scale, load_takes
from mobile_vla_ros.types import ACCEPTED_VERDICTS, ActionSpec


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


@dataclass(frozen=True)
class Scored:
    """
    A policy measured on validation runs.

    :param summary: what `mobile_vla evaluate --json` prints (see `score`).
    :param runs: the validation runs; the arrays hold their windows in this order.
    :param actions: (M, window, chunk, axes) what was driven, normalised.
    :param predicted: (M, window, chunk, axes) what the policy says, normalised.
    :param real: (M, window, chunk) bool: steps that count.
    """

    summary: dict
    runs: Sequence[Run]
    actions: np.ndarray
    predicted: np.ndarray
    real: np.ndarray


def score(policy: LoadedPolicy, train: Sequence[Run], val: Sequence[Run],
          tokens: ImageTokens | None = None) -> Scored:
    """
    Measure a policy on validation runs beside the baselines fitted to training runs.

    :param tokens: image tokens of the validation runs, computed before.
    :returns: its summary has `baselines`: name to metrics; `policy`: its metrics, `image_blanked`
        (its metrics without the image) and `change`: mean absolute change of each axis, in its
        unit, when the image is blanked and when the instruction is swapped; `better_than`: the
        baselines that it beats in loss.
    """
    spec = policy.spec
    actions, _, _ = targets(val, spec.actions, spec.window)
    result = baseline_scores(train, val, spec.actions, spec.window)

    def ask(runs: Sequence[Run], **options) -> Predictions:
        return predict(policy.network, dataset(runs, spec, policy.tokenizer, PIECE_FRAMES,
                                               tokens=tokens, **options))
    found, blanked = ask(val), ask(val, blank_images=True)
    change = {'image_blanked': _change(found.motion, blanked.motion, spec.actions)}
    swapped_runs = swap_instructions(val, train)
    if swapped_runs:
        change['instruction_swapped'] = _change(found.motion, ask(swapped_runs).motion,
                                                spec.actions)
    scored = measure(found.motion, actions, found.real, spec.actions)
    result['policy'] = {
        **scored, 'image_blanked': measure(blanked.motion, actions, found.real, spec.actions),
        'change': change,
        'better_than': [name for name, entry in result['baselines'].items()
                        if scored['loss'] < entry['loss']]}
    return Scored(result, val, actions, found.motion[..., :len(spec.actions.axes)], found.real)


def baseline_scores(train: Sequence[Run], val: Sequence[Run], actions: ActionSpec,
                    window: int) -> dict:
    """Return `baselines`: the metrics of every predictor that sees no image."""
    wanted, real, _ = targets(val, actions, window)
    return {'windows': len(wanted),
            'baselines': {name: measure(prediction, wanted, real, actions)
                          for name, prediction in baselines(train, val, actions, window).items()}}


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
    loaded = load_bundle(policy, device=device, offline=offline) if policy else None
    if loaded:
        spec = loaded.spec
        sampling = Sampling(spec.rate_hz, spec.window, spec.chunk, spec.command_max_age_s)
    known = loaded.spec.data if loaded else {}
    takes = load_takes(data, sampling,
                       accept_verdicts or known.get('accept_verdicts') or ACCEPTED_VERDICTS,
                       val_share, split_seed, known=known)
    if loaded:
        result = score(loaded, takes.train, takes.val).summary
    else:
        result = baseline_scores(takes.train, takes.val,
                                 default_scale(takes.train, axes), sampling.window)
    result['episodes'] = {'train': len({run.episode_id for run in takes.train}),
                          'val': len({run.episode_id for run in takes.val})}
    result['rate_hz'] = sampling.rate_hz
    result['skipped'] = takes.left_out
    return result
