"""`mobile_vla simulate`: a policy in the arena, in one process and faster than real time."""

import argparse
import json
from pathlib import Path

EXAMPLE = 'example: mobile_vla simulate --policy runs/first/best --suite unseen_layouts'
PERIOD_NS = 100_000_000


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'simulate', help='drive a policy in the arena',
        description='Drive a policy, or without one the expert, through a suite of scenes.',
        epilog=EXAMPLE)
    parser.add_argument('--policy', type=Path, help='policy bundle; without it the expert drives')
    parser.add_argument('--suite', default='unseen_layouts', help='suite of scenes')
    parser.add_argument('--trials', type=int, default=20, help='how many (20)')
    parser.add_argument('--seed', type=int, default=0, help='number of the first scene (0)')
    parser.add_argument('--blank', action='store_true', help='show the policy no image: a control')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Drive the trials and print how they ended."""
    from tqdm import tqdm

    from mobile_vla_ros.sim.arena import Arena
    from mobile_vla_ros.sim.suites import scene
    driver = _driver(args)
    arena = Arena()
    outcomes = []
    for trial in tqdm(range(args.seed, args.seed + args.trials), disable=args.json):
        arena.reset(scene(args.suite, trial))
        driver.reset(arena)
        while arena.state == 'running':
            arena.step(driver.command(arena), PERIOD_NS)
        outcomes.append({'trial': trial, 'outcome': arena.state,
                         'elapsed_s': arena.time_ns / 1e9})
    arena.close()
    count = len(outcomes)
    result = {'suite': args.suite, 'trials': count,
              'success_rate': sum(o['outcome'] == 'success' for o in outcomes) / count,
              'collision_rate': sum(o['outcome'] == 'collision' for o in outcomes) / count,
              'outcomes': outcomes}
    if args.json:
        print(json.dumps(result))
    else:
        print(f'{args.suite}: {result["success_rate"]:.0%} success, '
              f'{result["collision_rate"]:.0%} collisions in {count} trials')
    return 0


def _driver(args: argparse.Namespace):
    if args.trials < 1:
        from mobile_vla_ros.errors import UserError
        raise UserError('there is nothing to drive', got=f'--trials {args.trials}',
                        expected='at least 1')
    if args.policy is None:
        return ExpertDriver()
    import torch

    from mobile_vla_ros.runtime.policy import VlaPolicy
    torch.set_num_threads(1)
    return PolicyDriver(VlaPolicy.load(args.policy, device=args.device, blank_images=args.blank))


class ExpertDriver:
    """The expert that also records the demo's takes."""

    def reset(self, arena) -> None:
        """Begin a scene."""
        from mobile_vla_ros.sim.expert import Expert
        self.expert = Expert(arena.scene, arena.scene.seed)

    def command(self, arena):
        """Return the (6,) twist for now."""
        return self.expert.command(arena.pose, arena.velocity, arena.time_ns)


class PolicyDriver:
    """A policy with the frame buffer and the playback that the inference node uses."""

    def __init__(self, policy):
        self.policy = policy

    def reset(self, arena) -> None:
        """Begin a scene."""
        from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
        spec = self.policy.spec
        self.policy.reset()
        self.buffer = FrameBuffer(spec.rate_hz, spec.window)

    def command(self, arena):
        """Look once, decide once; return the (6,) twist for now."""
        import numpy as np

        from mobile_vla_ros.runtime.playback import command_at
        from mobile_vla_ros.types import Frame
        self.buffer.add(Frame(arena.render(), arena.time_ns, arena.time_ns))
        window = self.buffer.window()
        if window is None:
            return np.zeros(6)
        plan = self.policy.infer(window, arena.scene.instruction)
        return command_at(plan, arena.time_ns)
