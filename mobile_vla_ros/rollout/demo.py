"""The steps of `mobile_vla demo`: record the expert, train on it, drive policy and controls."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import refuse_full
from mobile_vla_ros.rollout.live import SPEEDS, drive_live, run_trials, successes
from mobile_vla_ros.sim.scene import DIFF, OMNI
from mobile_vla_ros.sim.suites import for_base, scene

TRAIN_CONFIG = 'train_demo.yaml'
# The expert errs a little, so that the episodes show how to recover.
WOBBLE_MPS = 0.08
# The expert stays for a while where it has to stop: an episode that ended there would not show it.
HOLD_S = 1.5

# The name of the policy among the drivers, and the suite driven live.
POLICY, LIVE_SUITE = 'policy', 'unseen_layouts'
# Controls: trained without one input, and not trained at all; name -> value of --blank, --control.
TRAINED_CONTROLS = {'no image': 'image', 'no instruction': 'instruction'}
CONSTANT_CONTROLS = {'zero action': 'zero', 'mean action': 'mean_action'}
SUITES = ('unseen_layouts', 'unseen_pairs', 'unseen_wording', 'swap')
# Only a driver that sees and follows the instruction succeeds here: the controls drive these.
CONTROL_SUITES = ('swap',)
WORKERS = 2
AXES = {OMNI: ('linear_x', 'linear_y'), DIFF: ('linear_x', 'angular_z')}

# A driver, its suites, and its options of `mobile_vla simulate`.
Job = tuple[str, Sequence[str], list[str]]
# Driver -> suite, by its name without a base -> what `mobile_vla simulate --json` prints.
Results = dict[str, dict[str, dict]]


@dataclass(frozen=True)
class Demo:
    """
    A demo in a new folder, with nodes in a DDS domain of their own.

    :param env: added to the environment of the nodes.
    :param speed: the arena's time against real time while recording.
    :param base: of the robot: ``omni`` or ``diff``.
    """

    out: Path
    env: dict[str, str]
    speed: float
    base: str

    @classmethod
    def prepare(cls, out: Path | None, speed: float, base: str) -> 'Demo':
        """
        Check the settings and the machine, and make the folder.

        :param out: None: a folder below `runs` named by the time.
        :raises UserError: for a speed out of range, a machine that cannot render, or a folder that
            is not empty.
        """
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise UserError(
                'speed out of range', got=speed, expected=f'{SPEEDS[0]:g} to {SPEEDS[1]:g}'
            )
        from mobile_vla_ros.sim.arena import Arena

        arena = Arena()
        arena.reset(scene(for_base(LIVE_SUITE, base), 0))
        arena.render()
        arena.close()
        out = out or Path('runs') / time.strftime('demo_%Y%m%dT%H%M%SZ', time.gmtime())
        refuse_full(out)
        out.mkdir(parents=True, exist_ok=True)
        return cls(out.resolve(), isolated(), speed, base)

    @property
    def episodes(self) -> Path:
        """Folder of the recorded episodes."""
        return self.out / 'takes'

    @property
    def drive_speed(self) -> float:
        """The arena's time against real time while a policy drives live."""
        return self.speed / 2

    def record(self, count: int) -> list[dict]:
        """
        Record episodes of the expert: arena, guard and recorder as in `record.launch.py`.

        Every third episode starts near its end, so that stopping is shown often enough.

        :returns: what the runner reports, a trial each.
        """
        from mobile_vla_ros.bringup.stacks import RECORD

        trials = []
        for suite, share in (('train', count - count // 3), ('near', count // 3)):
            if not share:
                continue
            nodes = RECORD.nodes(
                sim=True,
                console=False,
                suite=for_base(suite, self.base),
                data_dir=str(self.episodes),
                operator='expert',
                robot='arena',
                image_transport='compressed',
                real_time_factor=self.speed,
            )
            trials += run_trials(
                nodes,
                share,
                f'record {suite}',
                suite=for_base(suite, self.base),
                env=self.env,
                log=self.out / 'log' / f'record_{suite}',
                runner={'expert': True, 'wobble': WOBBLE_MPS, 'hold_s': HOLD_S},
            )
        failed = {trial['outcome'] for trial in trials} - {'success'}
        if failed:
            print(
                f'{count - successes(trials)} of {count} episodes ended as '
                + ', '.join(sorted(failed))
            )
        return trials

    def train(self, epochs: int | None) -> dict[str, Path]:
        """
        Train the policy, then its controls on the same episodes in parallel.

        :param epochs: None: as in ``TRAIN_CONFIG``.
        :returns: the best bundle of each.
        """
        cores = os.cpu_count() or 1
        policies = {POLICY: self._train(POLICY, '', epochs, cores)}
        print(f'training in the background: {", ".join(TRAINED_CONTROLS)}', flush=True)
        threads = max(1, cores // len(TRAINED_CONTROLS))

        def train(control: tuple[str, str]) -> Path:
            return self._train(*control, epochs, threads, quiet=True)

        with ThreadPoolExecutor(WORKERS) as pool:
            bundles = pool.map(train, TRAINED_CONTROLS.items())
            policies.update(zip(TRAINED_CONTROLS, bundles, strict=True))
        return policies

    def _train(
        self, name: str, blank: str, epochs: int | None, threads: int, *, quiet: bool = False
    ) -> Path:
        """Run `mobile_vla train`; return the best bundle."""
        from mobile_vla_ros.bringup.share import config_file

        out = self.out / 'training' / name.replace(' ', '_')
        arguments: dict[str, object] = {
            '--config': config_file(TRAIN_CONFIG),
            '--data': self.episodes,
            '--out': out,
            '--token_cache': self.out / 'image_tokens',
            '--blank': blank,
        }
        if epochs is not None:
            arguments['--epochs'] = epochs
        done = _mobile_vla(
            'train',
            *(str(part) for item in arguments.items() for part in item),
            '--axes',
            *AXES[self.base],
            threads=threads,
            capture=quiet,
        )
        if done.returncode:
            raise UserError(
                f'the training stopped ({name})', got=done.stderr or f'status {done.returncode}'
            )
        return out / 'best'

    def drive(self, policies: dict[str, Path], trials: int) -> Results:
        """Drive the policy in every suite, and each control in ``CONTROL_SUITES``."""
        jobs: list[Job] = [
            (name, SUITES if name == POLICY else CONTROL_SUITES, ['--policy', str(policy)])
            for name, policy in policies.items()
        ]
        jobs += [
            (name, CONTROL_SUITES, ['--policy', str(policies[POLICY]), '--control', control])
            for name, control in CONSTANT_CONTROLS.items()
        ]
        return drive_jobs(jobs, trials, self.out / 'driven')

    def drive_live(self, policy: Path, scenes: int) -> list[dict]:
        """Drive scenes through the live nodes; return as ``rollout.live.drive_live``."""
        return drive_live(
            policy=policy,
            suite=for_base(LIVE_SUITE, self.base),
            first=0,
            count=scenes,
            speed=self.drive_speed,
            what='drive live',
            log=self.out / 'log' / 'live',
            env=self.env,
        )


def drive_jobs(jobs: Sequence[Job], trials: int, out: Path) -> Results:
    """
    Run `mobile_vla simulate` for each job, a few in parallel.

    :param trials: of each suite.
    :param out: folder with a folder for each driver; its finished trials are kept.
    """
    from tqdm import tqdm

    def drive(job: Job) -> tuple[str, dict[str, dict]]:
        name, suites, options = job
        done = _mobile_vla(
            'simulate',
            '--json',
            '--suite',
            *suites,
            '--trials',
            str(trials),
            '--jobs',
            str(max(1, (os.cpu_count() or 1) // WORKERS)),
            *options,
            '--out',
            str(out / name.replace(' ', '_')),
            threads=1,
            capture=True,
        )
        if done.returncode:
            raise UserError(f'the drives stopped ({name})', got=done.stderr.strip())
        result = json.loads(done.stdout)
        driven = result.get('suites') or {result['suite']: result}
        return name, dict(zip(suites, driven.values(), strict=True))

    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(tqdm(pool.map(drive, jobs), total=len(jobs), desc='drive', unit='driver'))


def _mobile_vla(*arguments: str, threads: int, capture: bool) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    return subprocess.run(
        [sys.executable, '-m', 'mobile_vla_ros.cli.main', *arguments],
        env={**os.environ, 'OMP_NUM_THREADS': str(threads)},
        capture_output=capture,
        text=True,
        check=False,
    )
