"""The result of the demo: tables for the terminal, and a page."""

import json
from pathlib import Path

import numpy as np

from mobile_vla_ros import __version__, text_table
from mobile_vla_ros.model.policy_spec import PolicySpec, read_spec
from mobile_vla_ros.report.figures import plots
from mobile_vla_ros.report.pages import page
from mobile_vla_ros.report.pages.trials_page import span
from mobile_vla_ros.rollout.demo import LIVE_SUITE, POLICY

IMAGES = 8
NAMES = {
    'zero': 'stand still',
    'mean_action': 'mean action',
    'mean_per_step': 'mean of each step',
    'mean_per_position_and_step': 'mean of each position and step',
    'repeat_last': 'repeat the last command',
}


def _rows(spec: PolicySpec) -> list[tuple[str, dict]]:
    metrics = spec.metrics
    return [
        ('policy', metrics['policy']),
        ('policy, no image', metrics['policy']['image_blanked']),
        *((NAMES[name], metrics['baselines'][name]) for name in NAMES),
    ]


def _cells(spec: PolicySpec) -> tuple[list[str], list[list[str]]]:
    axes = list(zip(spec.actions.axes, spec.actions.units, strict=True))
    head = ['on held-out episodes', 'loss_arm_act'] + [
        f'{axis} {name}' for axis, unit in axes for name in (f'MAE {unit}', f'RMSE {unit}', 'R²')
    ]
    rows = []
    for name, row in _rows(spec):
        cells = [name, f'{row["loss_arm_act"]:.5f}']
        for axis, _ in axes:
            cells += [
                f'{row[axis]["mae"]:.3f}',
                f'{row[axis]["rmse"]:.3f}',
                text_table.number(row[axis]['r2'], '.2f'),
            ]
        rows.append(cells)
    return head, rows


def _closed_loop(results: dict[str, dict[str, dict]]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: each driver's success by suite, and collisions."""
    suites = list(dict.fromkeys(suite for result in results.values() for suite in result))
    head = ['in scenes that no episode has', *suites, 'collisions']
    rows = []
    for name, result in results.items():
        cells = []
        for suite in suites:
            if suite not in result:
                cells.append('–')
                continue
            cells.append(
                f'{result[suite]["success_rate"]:.0%} ({span(result[suite]["success_interval"])})'
            )
        trials = sum(entry['trials'] for entry in result.values())
        hit = sum(entry['collision_rate'] * entry['trials'] for entry in result.values())
        rows.append([name, *cells, f'{hit / trials:.1%}'])
    return head, rows


def table(policy: Path, results: dict[str, dict[str, dict]], live: list[dict]) -> str:
    """Return the tables as text for a terminal."""
    tables = [
        text_table.table([head, *rows], '<>')
        for head, rows in (_cells(read_spec(policy)), _closed_loop(results))
    ]
    text = '\n\n'.join(tables)
    return f'{text}\n\nlive, through the nodes: {_live(results, live)}'


def _live(results: dict[str, dict[str, dict]], live: list[dict]) -> str:
    """Return a sentence on the live drives and the same scenes in process."""
    success = sum(trial['outcome'] == 'success' for trial in live)
    same = {entry['scene']: entry['outcome'] for entry in results[POLICY][LIVE_SUITE]['outcomes']}
    both = [trial for trial in live if trial['trial'] in same]
    alike = sum(trial['outcome'] == same[trial['trial']] for trial in both)
    return (
        f'{success} of {len(live)} scenes of {LIVE_SUITE} succeeded; {alike} of {len(both)} '
        'ended as in process'
    )


def write_report(
    path: Path,
    *,
    policy: Path,
    episodes: Path,
    results: dict[str, dict[str, dict]],
    live: list[dict],
    seconds: dict[str, float],
    speeds: tuple[float, float],
) -> Path:
    """
    Write the page, with frames and the training's history if these exist.

    :param results: driver → suite → what `mobile_vla simulate --json` prints.
    :param live: the result of `rollout.live.drive_live`.
    :param speeds: the arena's time against real time while recording and while driving live.
    """
    spec = read_spec(policy)
    return page.write(
        path,
        page.render(
            'demo.html',
            title='From episodes to a drive',
            subtitle='mobile_vla demo: recorded, trained and driven on this machine',
            verdict=_verdict(spec, results),
            key_figures=_key_figures(results, seconds['all']),
            closed_loop=_closed_loop(results),
            swap=_swap(results),
            live=_live(results, live),
            live_drives=plots.top_down(_plans(live)),
            predicting=_cells(spec),
            losses=_losses(spec, policy.parent / 'history.json'),
            photos=_images(policy, spec, episodes) if episodes.is_dir() else None,
            seconds=seconds,
            speeds=[f'{speed:g}' for speed in speeds],
            spec=spec,
            version=__version__,
        ),
    )


def _key_figures(
    results: dict[str, dict[str, dict]], seconds: float
) -> list[tuple[str, str, str]]:
    control = best_control(results)
    return [
        *(
            (
                f'{entry["success_rate"]:.0%}',
                f'{suite}: success of {entry["trials"]} trials',
                'good' if entry['success_rate'] > control else 'bad',
            )
            for suite, entry in results[POLICY].items()
        ),
        (f'{control:.0%}', 'best control on swap', ''),
        (f'{seconds / 60:.1f} min', 'total time', ''),
    ]


def _swap(results: dict[str, dict[str, dict]]) -> str:
    """Draw each driver's success on swap."""
    swaps = {name: result['swap'] for name, result in results.items()}
    return plots.success_bars(
        [
            (
                name,
                round(swap['success_rate'] * swap['trials']),
                swap['trials'],
                swap['success_interval'],
            )
            for name, swap in swaps.items()
        ]
    )


def _losses(spec: PolicySpec, history: Path) -> str | None:
    """Draw the losses of the training; None without its history."""
    if not history.is_file():
        return None
    past = json.loads(history.read_text())
    return plots.loss_curve(
        [row['train_loss'] for row in past],
        [row['val_loss'] for row in past],
        {NAMES[name]: entry['loss'] for name, entry in spec.metrics['baselines'].items()},
    )


def best_control(results: dict[str, dict[str, dict]]) -> float:
    """Return the highest success rate of a control on swap."""
    return max(
        result['swap']['success_rate'] for name, result in results.items() if name != POLICY
    )


def _verdict(spec: PolicySpec, results: dict[str, dict[str, dict]]) -> str:
    unbeaten = sorted(set(spec.metrics['baselines']) - set(spec.metrics['policy']['better_than']))
    layouts, swap = results[POLICY][LIVE_SUITE], results[POLICY]['swap']
    control = best_control(results)
    inputs = (
        'It uses both image and instruction'
        if swap['success_rate'] > control
        else 'It does NOT use both image and instruction'
    )
    baselines = (
        'On held-out episodes it predicts better than every baseline that sees no image.'
        if not unbeaten
        else 'On held-out episodes it is NOT better than: '
        + ', '.join(NAMES[name] for name in unbeaten)
        + '.'
    )
    return (
        f'The policy followed its instruction in {layouts["success_rate"]:.0%} of '
        f'{layouts["trials"]} new scenes. {inputs}: given two different instructions in the same '
        f'scene, it followed both in {swap["success_rate"]:.0%} of {swap["trials"]} trials; '
        f'controls without image or instruction, or with a constant command, in at most '
        f'{control:.0%}. {baselines}'
    )


def _plans(live: list[dict]) -> list[plots.Plan]:
    from mobile_vla_ros.sim.suites import scene

    plans = []
    for trial in live:
        world = scene(LIVE_SUITE, trial['trial'])
        things = [
            plots.Thing(
                thing.shape, thing.rgb, thing.x, thing.y, thing.radius, number == world.task.target
            )
            for number, thing in enumerate(world.objects)
        ]
        plans.append(
            plots.Plan(
                trial['instruction'],
                things,
                [('policy', [row[:2] for row in trial['path']], trial['outcome'])],
            )
        )
    return plans


def _images(policy: Path, spec: PolicySpec, episodes: Path) -> list[tuple[np.ndarray, str]]:
    """Return images of held-out episodes with arrows for driven and predicted velocity."""
    from mobile_vla_ros.data.segments import Sampling, load_segments
    from mobile_vla_ros.runtime.overlay import DRIVEN, PREDICTED, draw_arrows
    from mobile_vla_ros.runtime.vla_policy import VlaPolicy

    held_out = [episodes / f'{name}.h5' for name in spec.data['val_episodes']]
    segments, _ = load_segments(
        [path for path in held_out if path.is_file()],
        Sampling.of(spec),
    )
    driver = VlaPolicy.load(policy)
    full_speed = max(spec.actions.scale)
    images = []
    for number, segment in enumerate(segments[:IMAGES]):
        # An early, a middle or a late frame, in turn.
        rows = segment.windows
        chosen = rows[(len(rows) - 1) * (1 + 3 * (number % 3)) // 10]
        last = chosen[-1]
        with segment.open() as episode:
            window = [episode.frame(int(row)) for row in segment.frames[chosen]]
        driver.reset()
        plan = driver.infer(window, segment.instruction)
        images.append(
            (
                draw_arrows(
                    window[-1].image,
                    [(segment.ahead[last, 0], DRIVEN), (plan.twists[0], PREDICTED)],
                    full_speed,
                ),
                segment.instruction,
            )
        )
    return images
