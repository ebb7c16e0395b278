"""
Drive a suite of the arena with a policy, without ROS and without a display.

    .venv/bin/python examples/drive_headless.py --policy runs/first/best --suite swap --trials 10
"""

import argparse
import contextlib
import sys
from pathlib import Path

from mobile_vla_ros import UserError
from mobile_vla_ros.rollout.drivers import make_driver, read_policy
from mobile_vla_ros.rollout.simulation import named
from mobile_vla_ros.rollout.trials import run_trial
from mobile_vla_ros.sim.arena import Arena


def drive(policy: Path, suite: str, trials: int, device: str) -> None:
    """Print the outcome of each scene and the number of successful trials."""
    spec = read_policy(policy)
    print(f'{policy}: {", ".join(spec.actions.axes)} at {spec.rate_hz:g} Hz')
    (suite,) = named([suite], policy)  # a policy without linear_y gets a base that needs none
    with contextlib.closing(Arena()) as arena:
        # The policy behind the same frame buffer, playback and guard as on a robot.
        driver = make_driver(policy, control='', device=device, arena=arena)
        successes = 0
        for number in range(trials):
            trial = run_trial(arena, suite, number, driver)  # one scene; in the suite `swap`, two
            for scene in trial.drives:
                print(
                    f'{scene.scene:4} {scene.outcome:9} {scene.elapsed_s:4.1f} s '
                    f'(expert {scene.expert_s or float("nan"):4.1f} s)  {scene.instruction}'
                )
            successes += trial.success
    print(f'{suite}: {successes} of {trials} trials')


def main() -> None:
    """Read the arguments, and drive."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        '--policy', type=Path, default=Path('builtin:demo'), help='bundle (builtin:demo)'
    )
    parser.add_argument('--suite', default='unseen_layouts', help='suite (unseen_layouts)')
    parser.add_argument('--trials', type=int, default=5, help='trials to drive (5)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    args = parser.parse_args()
    try:
        drive(args.policy, args.suite, args.trials, args.device)
    except UserError as error:  # no such policy or suite, or no OpenGL on this machine
        sys.exit(str(error))


if __name__ == '__main__':
    main()
