"""Replay an episode through the live inference node; compare with a replay in process."""

from pathlib import Path

import numpy as np

from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.bringup.processes import ProcessEnded, Processes
from mobile_vla_ros.bringup.share import default_params
from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.replay.run import Replayed, Settings
from mobile_vla_ros.rollout.live import log_folder
from mobile_vla_ros.runtime.own_policy import node_name
from mobile_vla_ros.types import NANOSECONDS

START_TIMEOUT_S, MAX_FRAME_S = 120.0, 5.0
# m/s, m/s, rad/s: nothing is driven, so every axis is allowed.
ANY_VELOCITY = [1000.0, 1000.0, 1000.0]


def replay_live(settings: Settings, found: Replayed, spec: PolicySpec, tolerance: float) -> dict:
    """
    Replay the episode to the inference node as a process, and compare its proposals.

    Messages stay on this machine, and nothing subscribes to `cmd_vel`.

    :param found: the replay in process.
    :param tolerance: m/s and rad/s.
    :returns: see `compare`.
    :raises UserError: if a node exits early; its log is kept.
    """
    with log_folder() as log:
        return compare(_answers(settings, found, spec, log), found, tolerance)


def _answers(settings: Settings, found: Replayed, spec: PolicySpec, log: Path) -> list[dict]:
    """Return the lines of the replay node."""
    from tqdm import tqdm

    step_s = max([*found.seconds, found.first_s or 0.0, 0.2])
    inference = NodeSpec(
        'inference',
        'inference_node',
        parameters={
            'policy': node_name(settings.policy),
            'instruction': found.instruction,
            'device': settings.device,
            'precision': settings.precision,
            'torch_threads': settings.threads,
            'offline': settings.offline,
            'backbone': settings.backbone,
            'image_transport': 'compressed',
            'max_velocity': ANY_VELOCITY,
            'use_sim_time': True,
        },
        params_files=default_params('drive.yaml'),
    )
    replay = NodeSpec(
        'replay',
        'replay_node',
        parameters={
            'episode': str(settings.episode.resolve()),
            'camera': spec.camera,
            'policy_rate_hz': float(spec.rate_hz),
            'window': spec.window,
            'start_s': START_TIMEOUT_S,
            'step_s': 10 * step_s,
            'first_s': 30 + 20 * step_s,
        },
        sends_images=True,
    )
    plans = int(found.new.sum())
    limit_s = (
        START_TIMEOUT_S
        + len(found.now_ns)
        + plans * (MAX_FRAME_S + step_s)
        + float(found.now_ns[-1] - found.now_ns[0]) / NANOSECONDS
    )
    bar = tqdm(
        total=plans,
        desc='live',
        unit='plan',
        leave=False,
        disable=True if settings.quiet else None,
    )
    with bar, Processes(log, isolated()) as processes:
        processes.start(inference)
        processes.start(replay, finite=True)
        running = processes['replay']

        def draw() -> None:
            bar.update(len(running.json_lines()) - bar.n)

        try:
            processes.wait('replay', limit_s, draw)
        except (ProcessEnded, TimeoutError) as error:
            raise UserError(f'the live replay stopped: {error}') from error
        return running.json_lines()


def compare(answers: list[dict], found: Replayed, tolerance: float) -> dict:
    """
    Compare live proposals with those in process, at the frames where both proposed.

    :returns: `equal`; `frames` compared; `worst`, the largest difference (m/s or rad/s), and
        `worst_at_s`; `withheld`: reason → number of frames at which the node proposed nothing;
        and a `sentence` with all of this.
    """
    withheld: dict[str, int] = {}
    differences, at = [], []
    for answer in answers:
        if 'withheld' in answer:
            withheld[answer['withheld']] = withheld.get(answer['withheld'], 0) + 1
        elif np.isfinite(found.twist[answer['frame'], 0]):
            differences.append(
                float(np.abs(np.array(answer['twist']) - found.twist[answer['frame']]).max())
            )
            at.append(answer['frame'])
    silent = int((found.new & found.commanded).sum()) - len(differences) - sum(withheld.values())
    if silent > 0:
        withheld['no answer'] = withheld.get('no answer', 0) + silent
    worst = max(differences, default=None)
    equal = worst is not None and worst <= tolerance
    place = at[int(np.argmax(differences))] if differences else 0
    at_s = float(found.now_ns[place] - found.now_ns[0]) / NANOSECONDS
    if worst is None:
        sentence = 'the live node proposed nothing at the compared frames'
    else:
        sentence = (
            f'the live node proposes the same at {len(differences)} frames, within {worst:.1g}'
            if equal
            else f'the live node differs by {worst:.3g} m/s or rad/s at {at_s:.2f} s (expected '
            f'at most {tolerance:g}, at {len(differences)} frames)'
        )
    for reason, count in withheld.items():
        sentence += f'; no proposal at {count} more: {reason}'
    return {
        'equal': equal,
        'frames': len(differences),
        'worst': worst,
        'worst_at_s': at_s if differences else None,
        'withheld': withheld,
        'sentence': sentence,
    }
