"""Trials in the arena through live nodes: ROS 2 processes over the loopback."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError

if TYPE_CHECKING:
    from mobile_vla_ros.bringup.processes import Running
    from mobile_vla_ros.bringup.spec import NodeSpec

START_TIMEOUT_S = 60.0
SECONDS_A_TRIAL = 60.0
# Controls of a live policy: the blanked input.
CONTROLS = ('', 'image')
SPEEDS = (0.1, 5.0)


def drive_live(
    *,
    policy: Path | str | None,
    suite: str,
    first: int,
    count: int,
    control: str = '',
    speed: float = 2.0,
    log: Path | None = None,
    device: str = '',
    precision: str = '',
    backbone: str = '',
    offline: bool = False,
    what: str = 'drive',
    quiet: bool = False,
    env: Mapping[str, str] | None = None,
) -> list[dict]:
    """
    Drive scenes of a suite through the nodes that `drive.launch.py` starts.

    :param policy: bundle; None: the expert drives, through the same guard.
    :param first: index of the first scene; ``count``: how many.
    :param control: ``image`` shows the policy no image.
    :param speed: the arena's time against real time.
    :param log: folder of the nodes' logs; None: a new one, kept only if a node fails.
    :param device, precision, backbone, offline: as for the inference node; empty or False: as in
        the parameter file.
    :param what: the task, as a verb phrase, for bar and errors.
    :param quiet: draw no bar.
    :param env: of the nodes, instead of ``isolated()``.
    :returns: for each scene: trial (the scene's index), outcome, elapsed_s, instruction, and path:
        rows [x (m), y (m), yaw (rad)] every 0.1 s.
    :raises UserError: for invalid settings, or if a node exits early.
    """
    _check(policy, suite, first, count, control, speed)
    common = {'sim': True, 'suite': suite, 'real_time_factor': speed}
    if policy is None:
        from mobile_vla_ros.bringup.stacks import RECORD

        nodes = [node for node in RECORD.nodes(console=False, **common) if node.name != 'recorder']
        runner = {'expert': True, 'record': False}
    else:
        from mobile_vla_ros.bringup.stacks import DRIVE
        from mobile_vla_ros.runtime.own_policy import node_name

        nodes = DRIVE.nodes(
            policy=node_name(policy),
            device=device,
            precision=precision,
            backbone=backbone,
            next_scene_after_s=0.0,
            image_transport='compressed',
            **common,
        )
        own: dict[str, str | bool] = {'blank': control} if control else {}
        own |= {'offline': True} if offline else {}
        nodes = [
            replace(node, parameters={**node.parameters, **own})
            if node.name == 'inference'
            else node
            for node in nodes
        ]
        runner = {}
    with log_folder(log) as folder:
        return run_trials(
            nodes,
            count,
            what,
            suite=suite,
            log=folder,
            quiet=quiet,
            runner={'first_trial': first, **runner},
            env=isolated() if env is None else env,
        )


@contextlib.contextmanager
def log_folder(given: Path | None = None) -> Iterator[Path]:
    """Yield a folder for logs: the user's, or a new one, kept only after an error."""
    folder = given or Path(tempfile.mkdtemp(prefix='mobile_vla_'))
    keep = given is not None
    try:
        yield folder
    except UserError:
        keep = True  # the error names the logs
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _check(
    policy: Path | str | None, suite: str, first: int, count: int, control: str, speed: float
):
    """Raise UserError for invalid settings; start no node."""
    from mobile_vla_ros.sim import suites

    if count < 1:
        raise UserError('nothing to drive', got=f'{count} scenes', expected='at least 1')
    for index in (first, first + count - 1):
        suites.scene(suite, index)
    if control not in CONTROLS:
        raise UserError(
            'this control cannot be driven through live nodes',
            got=repr(control),
            expected=' or '.join(repr(known) for known in CONTROLS),
            remedy='leave out --ros to drive it in one process',
        )
    if control and policy is None:
        raise UserError(
            'the expert uses no image, so the control does not apply',
            got=f'the control {control!r} without a policy',
            remedy='add --policy FOLDER',
        )
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise UserError(
            'speed out of range', got=speed, expected=f'{SPEEDS[0]:g} to {SPEEDS[1]:g}'
        )
    if policy is not None:
        from mobile_vla_ros.rollout.drivers import read_policy

        read_policy(policy)


def run_trials(
    nodes: Sequence['NodeSpec'],
    count: int,
    what: str,
    *,
    suite: str,
    runner: dict,
    log: Path,
    env: Mapping[str, str],
    quiet: bool = False,
) -> list[dict]:
    """
    Start nodes and the arena's runner; return the runner's report of each trial.

    All processes have ended when this returns or raises, also after Ctrl-C.

    :param nodes: the arena first, then the nodes that drive in it.
    :param what: the task, as a verb phrase, for the bar and for errors.
    :param runner: parameters of the runner.
    :param log: folder of the logs.
    :param env: added to the environment of the nodes.
    :raises UserError: if a node exits early, or after the timeout.
    """
    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes
    from mobile_vla_ros.bringup.spec import NodeSpec

    runner_node = NodeSpec(
        'arena_runner',
        'arena_runner',
        parameters={
            'use_sim_time': nodes[0].parameters['publish_clock'],
            'suite': suite,
            'trials': count,
            **runner,
        },
    )
    with Processes(log, env) as processes:
        processes.start(nodes)
        processes.start(runner_node, finite=True)
        with _Progress(processes['arena_runner'], count, what, quiet) as progress:
            try:
                processes.wait(
                    'arena_runner', START_TIMEOUT_S + count * SECONDS_A_TRIAL, progress.update
                )
            except (ProcessEnded, TimeoutError) as error:
                raise UserError(f'failed to {what}: {error}') from error
        return progress.trials


def successes(trials: Sequence[dict]) -> int:
    """Return how many trials succeeded."""
    return sum(trial['outcome'] == 'success' for trial in trials)


class _Progress:
    """Collects the runner's lines and draws a bar."""

    def __init__(self, runner: 'Running', count: int, what: str, quiet: bool):
        from tqdm import tqdm

        self._runner = runner
        self.trials: list[dict] = []
        self._bar = tqdm(total=count, desc=f'{what:17}', unit='trial', disable=quiet)

    def __enter__(self) -> '_Progress':
        return self

    def __exit__(self, *_):
        self._bar.close()

    def update(self) -> None:
        """Add the lines written since the last call."""
        for trial in self._runner.json_lines()[len(self.trials) :]:
            self.trials.append(trial)
            self._bar.update()
            self._bar.set_postfix(success=f'{successes(self.trials)}/{len(self.trials)}')
