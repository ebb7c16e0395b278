"""What the demo says at its end: a table on the terminal and a page."""

import json
import statistics
from pathlib import Path

import numpy as np

from mobile_vla_ros import __version__
from mobile_vla_ros.model.bundle import PolicySpec, read_spec
from mobile_vla_ros.report import page, plots

PICTURES = 8
WHAT = {'zero': 'stand still', 'mean_action': 'mean action',
        'mean_per_step': 'mean action of each step',
        'mean_per_position_and_step': 'mean of each place and step',
        'repeat_last': 'repeat the last command'}


def _rows(spec: PolicySpec) -> list[tuple[str, dict]]:
    metrics = spec.metrics
    return [('policy', metrics['policy']),
            ('policy, no image', metrics['policy']['image_blanked']),
            *((WHAT[name], metrics['baselines'][name]) for name in WHAT)]


def _cells(spec: PolicySpec) -> tuple[list[str], list[list[str]]]:
    axes = list(zip(spec.actions.axes, spec.actions.units, strict=True))
    head = ['on held-out takes', 'loss_arm_act'] + [
        f'{axis} {name}' for axis, unit in axes for name in (f'MAE {unit}', f'RMSE {unit}', 'R²')]
    rows = []
    for name, row in _rows(spec):
        cells = [name, f'{row["loss_arm_act"]:.5f}']
        for axis, _ in axes:
            r2 = row[axis]['r2']
            cells += [f'{row[axis]["mae"]:.3f}', f'{row[axis]["rmse"]:.3f}',
                      '–' if r2 is None else f'{r2:.2f}']
        rows.append(cells)
    return head, rows


def _closed_loop(driven: list[dict], blank: list[dict]) -> list[list[str]]:
    rows = []
    for name, trials in (('policy', driven), ('policy, no image', blank)):
        ends = [trial['outcome'] for trial in trials]
        times = [trial['elapsed_s'] for trial in trials if trial['outcome'] == 'success']
        low, high = plots.wilson(ends.count('success'), len(ends))
        rows.append([name, f'{ends.count("success")} of {len(ends)}',
                     f'{low:.0%} to {high:.0%}', str(ends.count('collision')),
                     str(ends.count('timeout')),
                     f'{statistics.mean(times):.1f} s' if times else '–'])
    return rows


CLOSED_LOOP_HEAD = ['in held-out layouts', 'success', '95 % interval', 'collisions', 'timeouts',
                    'mean time']


def table(policy: Path, driven: list[dict], blank: list[dict]) -> str:
    """Return both tables as text for a terminal."""
    return '\n\n'.join(
        '\n'.join('  '.join(cell.ljust(width) if column == 0 else cell.rjust(width)
                            for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
                  for row in rows)
        for rows in ([*_join(*_cells(read_spec(policy)))],
                     [CLOSED_LOOP_HEAD, *_closed_loop(driven, blank)])
        for widths in [[max(len(row[column]) for row in rows) for column in range(len(rows[0]))]])


def _join(head: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [head, *rows]


def write_report(path: Path, *, policy: Path, takes: Path, driven: list[dict], blank: list[dict],
                 seconds: dict[str, float], speeds: tuple[float, float]) -> Path:
    """
    Write the page; the takes and the training's history are shown where they are there.

    :param speeds: the arena's time against real time while recording and while driving.
    """
    spec = read_spec(policy)
    success = sum(trial['outcome'] == 'success' for trial in driven)
    blind = sum(trial['outcome'] == 'success' for trial in blank)
    change = spec.metrics['policy']['change']
    cards = [
        (f'{success} of {len(driven)}', 'held-out layouts reached, live', _mood(success > blind)),
        (f'{blind} of {len(blank)}', 'the same policy, shown no image', ''),
        *((f'{moved[axis]:.2f} {unit}', f'{axis} changes when the instruction is swapped', '')
          for moved in [change.get('instruction_swapped')] if moved
          for axis, unit in [(spec.actions.axes[-1], spec.actions.units[-1])]),
        (f'{seconds["all"] / 60:.1f} min', 'from nothing to this page', '')]
    head, rows = _cells(spec)
    parts = [
        page.paragraph(_verdict(spec, success, blind, len(driven))), page.cards(cards),
        page.heading('Driving layouts it has never seen'),
        page.paragraph('Live through the inference, guard and arena nodes over DDS, at '
                       f'{speeds[1]:g} times real time. A trial counts when the base stands '
                       'before the object that the instruction names, having touched nothing.'),
        page.figure(plots.success_bars([('policy', success, len(driven)),
                                        ('policy, no image', blind, len(blank))]),
                    'Bars: share of trials; lines: 95 % intervals (Wilson).'),
        page.table(CLOSED_LOOP_HEAD, _closed_loop(driven, blank), ours=[0]),
        page.figure(plots.top_down(_plans(driven, blank)),
                    'Every trial from above, forward is up; the target has a dashed ring. Solid: '
                    'the policy. Dotted: the same policy shown no image. A dot ends in success, a '
                    'cross does not; a red title is a failure of the policy.'),
        page.heading('Predicting the takes it was not trained on'),
        page.paragraph('Beside predictors that see no image. loss_arm_act is the loss in the '
                       "seed run's accounting, which averages four padded zeros in."),
        page.table(head, rows, ours=[0])]
    history = policy.parent / 'history.json'
    if history.is_file():
        past = json.loads(history.read_text())
        parts.append(page.figure(plots.loss_curve(
            [row['train_loss'] for row in past], [row['val_loss'] for row in past],
            {WHAT[name]: entry['loss'] for name, entry in spec.metrics['baselines'].items()}),
            'Huber loss on the real axes by epoch; dotted: what is reached without any image.'))
    if takes.is_dir():
        parts += [page.heading('What it sees, and what it would do'),
                  page.paragraph('Frames of held-out takes. White: what was driven. Yellow: what '
                                 'the policy predicts from this frame and the three before it.'),
                  page.images(_pictures(policy, spec, takes))]
    parts += [page.heading('How this was made'),
              page.code('mobile_vla demo\n' + '\n'.join(
                  f'# {name}: {value:.0f} s' for name, value in seconds.items() if name != 'all')),
              page.paragraph(
                  f'mobile_vla_ros {__version__}; backbone {spec.backbone.id}; '
                  f'{len(spec.data["train_episodes"])} takes to train, '
                  f'{len(spec.data["val_episodes"])} held out, recorded at {speeds[0]:g} '
                  f'times real time; window {spec.window}, chunk {spec.chunk}, '
                  f'{spec.rate_hz:g} Hz.')]
    path.write_text(page.page('From takes to a drive', 'mobile_vla demo: recorded, trained and '
                              'driven through the real nodes, on this machine', parts))
    return path


def _mood(good: bool) -> str:
    return 'good' if good else 'bad'


def _verdict(spec: PolicySpec, success: int, blind: int, trials: int) -> str:
    unbeaten = sorted(set(spec.metrics['baselines'])
                      - set(spec.metrics['policy']['better_than']))
    eyes = ('It uses its eyes: the same policy shown no image reaches '
            f'{blind}.' if success > blind else
            f'It does NOT use its eyes: shown no image it reaches {blind}.')
    blindness = ('On held-out takes it predicts better than every baseline that sees no image.'
                 if not unbeaten else 'On held-out takes it is NOT better than: '
                 + ', '.join(WHAT[name] for name in unbeaten) + '.')
    return (f'The policy reached the object it was told in {success} of {trials} layouts. '
            f'{eyes} {blindness}')


def _plans(driven: list[dict], blank: list[dict]) -> list[plots.Plan]:
    from mobile_vla_ros.sim.suites import scene
    plans = []
    for trial, control in zip(driven, blank, strict=True):
        world = scene('unseen_layouts', trial['trial'])
        things = [plots.Thing(thing.shape, thing.rgb, thing.x, thing.y, thing.radius,
                              number == world.target)
                  for number, thing in enumerate(world.objects)]
        plans.append(plots.Plan(
            world.goal.name, things,
            [('policy', trial['path'], trial['outcome']),
             ('no image', control['path'], control['outcome'])]))
    return plans


def _pictures(policy: Path, spec: PolicySpec, takes: Path) -> list[tuple[np.ndarray, str]]:
    """Return frames of held-out takes with the driven and the predicted velocity."""
    from mobile_vla_ros.data.runs import Sampling, load_runs
    from mobile_vla_ros.episode.reader import Episode
    from mobile_vla_ros.runtime.overlay import DRIVEN, PREDICTED, draw_arrows
    from mobile_vla_ros.runtime.policy import VlaPolicy
    held_out = [takes / f'{name}.h5' for name in spec.data['val_episodes']]
    runs, _ = load_runs([path for path in held_out if path.is_file()], Sampling(
        spec.rate_hz, spec.window, spec.chunk, spec.command_max_age_s))
    driver = VlaPolicy.load(policy)
    full_speed = max(spec.actions.scale)
    pictures = []
    for number, run in enumerate(runs[:PICTURES]):
        # An early, a middle or a late frame, in turn.
        last = spec.window - 1 + (len(run.frames) - spec.window) * (1 + 3 * (number % 3)) // 10
        with Episode.open(run.path) as episode:
            window = [episode.frame(int(row))
                      for row in run.frames[last - spec.window + 1:last + 1]]
        driver.reset()
        plan = driver.infer(window, run.instruction)
        pictures.append((draw_arrows(window[-1].image, [(run.ahead[last, 0], DRIVEN),
                                                        (plan.twists[0], PREDICTED)], full_speed),
                         run.instruction))
    return pictures
