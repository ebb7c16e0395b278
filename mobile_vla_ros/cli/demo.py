"""`mobile_vla demo`: record, train and drive in the arena, through the real nodes."""

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mobile_vla_ros.errors import UserError

EXAMPLE = 'example: mobile_vla demo --out runs/demo'
TRAIN_CONFIG = 'train_demo.yaml'
START_TIMEOUT_S = 60.0
SECONDS_A_TRIAL = 60.0
# The expert errs a little, so that the takes show how to come back.
WOBBLE_MPS = 0.08
# It stays for a while where it has to stop: a take that ended there would not show it.
HOLD_S = 1.5


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'demo', help='record, train and drive in the arena',
        description='Record takes from the expert through the recorder node, fine-tune a policy, '
                    'and drive it through the inference and guard nodes in layouts it has not '
                    'seen. Everything speaks ROS 2 over the loopback.', epilog=EXAMPLE)
    parser.add_argument('--out', type=Path, help='new folder (runs/demo_TIME)')
    parser.add_argument('--takes', type=int, default=80, help='takes to record (80)')
    parser.add_argument('--trials', type=int, default=20, help='held-out layouts to drive (20)')
    parser.add_argument('--epochs', type=int, help=f'passes over the takes (as {TRAIN_CONFIG})')
    parser.add_argument('--speed', type=float, default=4.0, metavar='FACTOR',
                        help="the arena's time against real time while recording (4); driving, "
                             'with a network in the loop, goes at half of it')
    parser.add_argument('--policy', type=Path, help='drive this one: neither record nor train')
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Setup:
    """
    What the steps of the demo share.

    :param speed: the arena's time against real time while recording.
    """

    out: Path
    env: dict[str, str]
    speed: float

    @property
    def drive_speed(self) -> float:
        """The arena's time against real time while a policy drives."""
        return self.speed / 2


def run(args: argparse.Namespace) -> int:
    """Run the demo; 1 when the policy is no better than the same policy shown no image."""
    setup = _prepare(args)
    started = time.monotonic()
    seconds = {}
    takes = setup.out / 'takes'
    policy = args.policy
    if policy is None:
        with _timed(seconds, 'record'):
            record(setup, takes, args.takes)
        with _timed(seconds, 'train'):
            policy = _train(takes, setup.out / 'training', args.epochs)
    with _timed(seconds, 'drive'):
        driven = drive(setup, policy, args.trials, 'policy', blank=False)
        blank = drive(setup, policy, args.trials, 'policy, no image', blank=True)
    seconds['all'] = time.monotonic() - started
    from mobile_vla_ros.cli.demo_report import table, write_report
    report = write_report(setup.out / 'report.html', policy=policy, takes=takes, driven=driven,
                          blank=blank, seconds=seconds, speeds=(setup.speed, setup.drive_speed))
    print('\n' + table(policy, driven, blank))
    print(f'\npolicy: {policy}\nreport: {report}\n'
          f'drive it: ros2 launch mobile_vla_ros drive.launch.py sim:=true policy:={policy}')
    if _successes(driven) > _successes(blank):
        return 0
    print('The policy drives no better than the same policy shown no image.')
    return 1


def _successes(trials: list[dict]) -> int:
    return sum(trial['outcome'] == 'success' for trial in trials)


def _prepare(args: argparse.Namespace) -> Setup:
    """Check everything that can be checked before an hour is lost; make the folder."""
    if args.takes < 2 or args.trials < 1:
        raise UserError('there is nothing to do', got=f'--takes {args.takes} --trials '
                        f'{args.trials}', expected='at least 2 takes and 1 trial')
    if not 0.1 <= args.speed <= 5:
        raise UserError('the speed is out of range', got=args.speed, expected='0.1 to 5')
    if args.policy is not None:
        from mobile_vla_ros.model.bundle import read_spec
        if 'policy' not in read_spec(args.policy).metrics:
            raise UserError(f'{args.policy} was not evaluated when it was written',
                            expected='the best or the final policy of a training run')
    from mobile_vla_ros.sim.arena import Arena
    from mobile_vla_ros.sim.suites import scene
    arena = Arena()
    arena.reset(scene('unseen_layouts', 0))
    arena.render()
    arena.close()
    out = args.out or Path('runs') / time.strftime('demo_%Y%m%dT%H%M%SZ', time.gmtime())
    if out.exists() and any(out.iterdir()):
        raise UserError(f'{out} is not empty', expected='a new folder for --out')
    out.mkdir(parents=True, exist_ok=True)
    # A domain of its own, and nothing leaves this machine: a robot near by must not hear us.
    env = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
           'ROS_DOMAIN_ID': str(1 + os.getpid() % 100), 'OMP_NUM_THREADS': '1'}
    return Setup(out.resolve(), env, args.speed)


class _timed:
    """Keep how long a block took."""

    def __init__(self, seconds: dict[str, float], name: str):
        self.seconds, self.name = seconds, name

    def __enter__(self):
        self.started = time.monotonic()

    def __exit__(self, *_):
        self.seconds[self.name] = time.monotonic() - self.started


def record(setup: Setup, takes: Path, count: int) -> list[dict]:
    """
    Record takes of the expert: arena, guard and recorder as `record.launch.py` starts them.

    Every fourth take begins near its target, so that stopping is shown often enough.
    """
    from mobile_vla_ros.bringup.stacks import RECORD
    trials = []
    for suite, share in (('train', count - count // 4), ('near', count // 4)):
        if not share:
            continue
        nodes = RECORD.nodes(sim=True, console=False, suite=suite, data_dir=str(takes),
                             operator='expert', robot='arena', image_transport='compressed',
                             real_time_factor=setup.speed)
        trials += _run_trials(setup, nodes, share, f'record {suite}', suite=suite,
                              runner={'expert': True, 'wobble': WOBBLE_MPS, 'hold_s': HOLD_S})
    failed = {trial['outcome'] for trial in trials} - {'success'}
    if failed:
        print(f'{count - _successes(trials)} of {count} takes ended as '
              + ', '.join(sorted(failed)))
    return trials


def drive(setup: Setup, policy: Path, count: int, name: str, *, blank: bool) -> list[dict]:
    """Drive held-out layouts: arena, inference and guard as `drive.launch.py` starts them."""
    from mobile_vla_ros.bringup.stacks import DRIVE
    nodes = DRIVE.nodes(sim=True, policy=str(policy), suite='unseen_layouts',
                        image_transport='compressed', real_time_factor=setup.drive_speed,
                        next_scene_after_s=0.0)
    if blank:
        nodes = [replace(node, parameters={**node.parameters, 'blank_images': True})
                 if node.name == 'inference' else node for node in nodes]
    return _run_trials(setup, nodes, count, name, suite='unseen_layouts', runner={})


def _run_trials(setup: Setup, nodes: list, count: int, what: str, *, suite: str,
                runner: dict) -> list[dict]:
    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes
    from mobile_vla_ros.bringup.spec import NodeSpec
    runs = NodeSpec('arena_runner', 'arena_runner', parameters={
        'use_sim_time': nodes[0].parameters['publish_clock'], 'suite': suite, 'trials': count,
        **runner})
    with Processes(setup.out / 'log' / what.replace(', ', '_').replace(' ', '_'),
                   setup.env) as processes:
        processes.start(nodes)
        processes.start(runs, finite=True)
        with _Progress(processes['arena_runner'].log, count, what) as progress:
            try:
                processes.wait('arena_runner', START_TIMEOUT_S + count * SECONDS_A_TRIAL,
                               progress.look)
            except (ProcessEnded, TimeoutError) as error:
                raise UserError(f'the demo stopped while it was to {what}: {error}') from error
        return progress.trials


class _Progress:
    """Reads the runner's lines as they come, and draws a bar."""

    def __init__(self, log: Path, count: int, what: str):
        self.log, self.count, self.what = log, count, what
        self.trials: list[dict] = []

    def __enter__(self) -> '_Progress':
        from tqdm import tqdm
        self.bar = tqdm(total=self.count, desc=f'{self.what:17}', unit='trial')
        return self

    def __exit__(self, *_):
        self.bar.close()

    def look(self) -> None:
        """Take in the lines written since the last look."""
        lines = [line for line in self.log.read_text(errors='replace').split('\n')[:-1]
                 if line.startswith('{')]
        for line in lines[len(self.trials):]:
            self.trials.append(json.loads(line))
            self.bar.update()
            self.bar.set_postfix(success=f'{_successes(self.trials)}/{len(self.trials)}')


def _train(takes: Path, out: Path, epochs: int | None) -> Path:
    from mobile_vla_ros.bringup.share import config_file
    from mobile_vla_ros.cli.train import parse, say
    from mobile_vla_ros.training.loop import train
    argv = ['--config', str(config_file(TRAIN_CONFIG)), '--data', str(takes), '--out', str(out)]
    if epochs is not None:
        argv += ['--epochs', str(epochs)]
    return train(*parse(argv), say=say)
