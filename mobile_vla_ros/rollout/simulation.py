"""Drive the suites of `mobile_vla simulate` in process or through live nodes, and log them."""

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import make_folder
from mobile_vla_ros.rollout.drivers import EXPERT, Timed, fingerprint, make_driver, read_policy
from mobile_vla_ros.rollout.jobs import Jobs, automatic
from mobile_vla_ros.rollout.trial_log import TrialLog
from mobile_vla_ros.rollout.trials import Trial, live_drive, run_trial, scenes_of
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.scene import DIFF, OMNI

# The live nodes are restarted after this many trials; finished batches are kept.
LIVE_BATCH = 20


@dataclass(frozen=True)
class Settings:
    """
    The settings of `mobile_vla simulate`.

    :param policy: bundle; None: the expert drives.
    :param trials: of each suite.
    :param seed: number of the first trial.
    :param control: '' or one of ``drivers.CONTROLS``.
    :param device: auto, cpu, cuda or cuda:1 ….
    :param precision: auto, fp32, bf16, fp16 or int8.
    :param offline: never ask the hub.
    :param backbone: folder or hub id of the policy's backbone, instead of the usual places.
    :param live: drive through the live inference and guard nodes.
    :param out: folder of the finished trials; None: do not keep them.
    :param quiet: draw no bar.
    :param jobs: processes that drive, each with its own policy; None: as many as the trials are
        worth on this machine.
    """

    policy: Path | str | None
    trials: int
    seed: int
    control: str = ''
    device: str = 'auto'
    precision: str = 'auto'
    backbone: str = ''
    offline: bool = False
    live: bool = False
    out: Path | None = None
    quiet: bool = False
    jobs: int | None = 1

    def check(self) -> None:
        """Raise UserError for settings that contradict each other; load nothing."""
        if self.policy is not None:
            from mobile_vla_ros.model.device import check_precision

            check_precision(self.precision)
        if self.trials < 1:
            raise UserError(
                'nothing to drive', got=f'--trials {self.trials}', expected='at least 1'
            )
        if self.jobs is not None and self.jobs < 1:
            raise UserError('nobody drives', got=f'--jobs {self.jobs}', expected='at least 1')
        if self.live and self.jobs not in (None, 1):
            raise UserError(
                'live nodes drive one trial at a time', got=f'--ros, --jobs {self.jobs}'
            )
        if self.control and self.control != 'zero' and self.policy is None:
            raise UserError(
                f'the control {self.control} needs a policy',
                got='no --policy',
                expected='the folder of a bundle',
            )

    @property
    def driver(self) -> dict:
        """The arguments of ``make_driver`` besides the arena, as JSON."""
        return {
            'policy': None if self.policy is None else str(self.policy),
            'control': self.control,
            'device': self.device,
            'precision': self.precision,
            'backbone': self.backbone,
            'offline': self.offline,
        }

    @property
    def who(self) -> str:
        """The driver, in words."""
        if self.control == 'zero':
            return 'no command'
        if self.policy is None:
            return 'the expert'
        control = {
            '': '',
            'image': ' without images',
            'instruction': ' without instructions',
            'mean_action': ', its mean action only',
        }[self.control]
        return f'{self.policy}{control}' + (', live over ROS' if self.live else '')


def named(names: Sequence[str], *policies: Path | str | None) -> list[str]:
    """
    Return each suite once; without names, every suite meant for measuring.

    :param policies: those that will drive, None for the expert; if none of them has linear_y, the
        scenes are those of a differential base.
    :raises UserError: for an unknown suite, or an unsuitable policy.
    """
    driving = [read_policy(one).actions.axes for one in policies if one and one != EXPERT]
    base = DIFF if driving and not any('linear_y' in axes for axes in driving) else OMNI
    if not names:
        names = [
            name for name, suite in suites.SUITES.items() if suite.yardstick and suite.base == base
        ]
    names = [suites.for_base(name, base) for name in names]
    for name in names:
        suites.scene(name, 0)
    return list(dict.fromkeys(names))


class Simulation(contextlib.AbstractContextManager):
    """
    Arena, driver and logs of some suites, closed at the end.

    :param names: names of the suites.
    :param driver: instead of the one of the settings.
    :raises UserError: for invalid settings, an unsuitable policy, logs of other trials, or a
        machine that cannot render.
    """

    def __init__(self, settings: Settings, names: Sequence[str], driver: Timed | None = None):
        settings.check()
        for name in names:
            scenes_of(name, settings.seed)
            scenes_of(name, settings.seed + settings.trials - 1)
        self._settings = settings
        self._logs: dict[str, TrialLog] = {}
        with contextlib.ExitStack() as stack:
            self.arena = stack.enter_context(contextlib.closing(Arena()))
            self._driver, self._jobs = driver, None
            jobs = automatic(settings.trials) if settings.jobs is None else settings.jobs
            jobs = min(jobs, settings.trials)
            if settings.live:
                if settings.policy is not None:
                    read_policy(settings.policy)
            elif driver is None and jobs > 1:
                self._jobs = stack.enter_context(Jobs(settings.driver, jobs))
            elif driver is None:
                self._driver = make_driver(arena=self.arena, **settings.driver)
            if settings.out is not None or (self._driver and self._driver.wants_images):
                self._render_once(names[0])
            policy = fingerprint(settings.policy)
            if settings.out is not None:
                make_folder(settings.out)
                for name in names:
                    self._logs[name] = stack.enter_context(
                        TrialLog(settings.out / f'{name}.jsonl', self._header(name, policy))
                    )
            self._closing = stack.pop_all()

    def __exit__(self, *_):
        self._closing.close()

    def drive(self, suite: str) -> tuple[list[Trial], tuple[float, float] | None]:
        """
        Drive the remaining trials of a suite.

        :returns: all its trials, and the arena's time against real time without and with the
            driver, None if nothing was driven in process.
        """
        from tqdm import tqdm

        settings, log = self._settings, self._logs.get(suite)
        trials = list(log.trials[: settings.trials]) if log else []
        remaining = range(settings.seed + len(trials), settings.seed + settings.trials)
        moved_s, driver_s, started = 0.0, 0.0, time.perf_counter()
        with tqdm(
            total=settings.trials,
            initial=len(trials),
            desc=suite,
            unit='trial',
            disable=settings.quiet or settings.live,  # the live drive has its own
        ) as bar:
            for trial, seconds in self._trials(suite, remaining):
                if log:
                    log.add(trial)
                trials.append(trial)
                moved_s += sum(drive.elapsed_s for drive in trial.drives)
                driver_s += seconds
                bar.set_postfix(
                    success=f'{sum(one.success for one in trials)}/{len(trials)}', refresh=False
                )
                bar.update()
        elapsed_s = time.perf_counter() - started
        if settings.live or not moved_s:
            return trials, None
        arena_s = elapsed_s - driver_s / (len(self._jobs) if self._jobs else 1)
        return trials, (moved_s / arena_s, moved_s / elapsed_s)

    def _trials(self, suite: str, numbers: range) -> Iterator[tuple[Trial, float]]:
        """Yield each trial with the seconds that its driver took."""
        if self._jobs:
            yield from self._jobs.drive(suite, numbers)
            return
        if self._driver is not None:
            for number in numbers:
                before_s = self._driver.seconds
                trial = run_trial(self.arena, suite, number, self._driver)
                yield trial, self._driver.seconds - before_s
            return
        for first in range(numbers.start, numbers.stop, LIVE_BATCH):
            yield from self._live(suite, range(first, min(first + LIVE_BATCH, numbers.stop)))

    def _live(self, suite: str, numbers: range) -> Iterator[tuple[Trial, float]]:
        """Start the live nodes once and group their drives into trials."""
        from mobile_vla_ros.rollout.live import drive_live

        settings = self._settings
        scenes = [scenes_of(suite, number) for number in numbers]
        records = iter(
            drive_live(
                policy=settings.policy,
                suite=suite,
                first=scenes[0][0],
                count=scenes[-1][-1] + 1 - scenes[0][0],
                control=settings.control,
                device=settings.device,
                precision=settings.precision,
                backbone=settings.backbone,
                offline=settings.offline,
                quiet=settings.quiet,
            )
        )
        for number, wanted in zip(numbers, scenes, strict=True):
            drives = tuple(
                live_drive(self.arena, suite, record)
                for record in itertools.islice(records, len(wanted))
            )
            if len(drives) < len(wanted):
                raise UserError(
                    'the live drive ended early',
                    got=f'{number - numbers[0]} trials',
                    expected=len(numbers),
                )
            yield Trial(number, drives), 0.0

    def _render_once(self, suite: str) -> None:
        """Render one image, to fail before anything is written if the machine cannot."""
        self.arena.reset(suites.scene(suite, scenes_of(suite, self._settings.seed)[0]))
        self.arena.render()

    def _header(self, suite: str, policy: str | None) -> dict:
        return {
            'suites_version': suites.VERSION,
            'suite': suite,
            'policy': policy,
            'control': self._settings.control,
            'seed': self._settings.seed,
            'ros': self._settings.live,
            'precision': self._precision,
            'backbone': self._settings.backbone,
        }

    @property
    def _precision(self) -> str:
        """The precision that `auto` stands for; '' of what has no choice."""
        from mobile_vla_ros.runtime.own_policy import is_own

        settings = self._settings
        if settings.policy is None or is_own(settings.policy):
            return ''
        from mobile_vla_ros.model.device import pick_precision

        return pick_precision(settings.precision, settings.device)
