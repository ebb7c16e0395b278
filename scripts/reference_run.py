#!/usr/bin/env python3
"""
Repeat the reference run on generated legacy episodes, and print its table as Markdown.

Drives the arena to write episodes in the reference run's own layout, imports them, trains with
config/train_seed.yaml and evaluates, by the commands that a user would type. On a machine with a
GPU add --backbone microsoft/kosmos-2-patch14-224 --precision fp16.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / 'config' / 'train_seed.yaml'
FILES, ROWS, SIZE = 57, 18, (1280, 720)
RATE_HZ, SPEED = 10.0, 1.15
ROW_NS = 100_000_000
DISTANCES = {'close': 1.4, 'medium': 1.7, 'far': 2.0}
# The reference run's teleop keys: speed ahead and to the left (away from the box).
KEYS = {'w': (1, 0), 'a': (0, 1), 'q': (1, 1), ' ': (0, 0)}
# Keys of rows 1 to 17 by boxes, their place and version: 8 sequences, mirrored for the right.
DRIVES = {
    ('1box', 'vert', 'core'): 'wwaaaaaqqwwwww   ',
    ('1box', 'vert', 'variant'): 'aaaawwqqqwwwwww  ',
    ('1box', 'hori', 'core'): 'wwwaaaaaaaqwwww  ',
    ('1box', 'hori', 'variant'): 'wqqqqaaawwwwwww  ',
    ('2box', 'vert', 'core'): 'aaaaaawwqwwwwwww ',
    ('2box', 'vert', 'variant'): 'wwqqqqqaaawwww   ',
    ('2box', 'hori', 'core'): 'aaaaaaaaqqwwwwww ',
    ('2box', 'hori', 'variant'): 'qqqqaaaaawwwwwww ',
}


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        epilog='example: .venv/bin/python scripts/reference_run.py --out runs/reference',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('runs/reference'),
        help='new folder for episodes and training run (%(default)s)',
    )
    parser.add_argument('--files', type=int, default=FILES, help='legacy episodes (%(default)s)')
    parser.add_argument('--epochs', type=int, help="override the recipe's epochs")
    parser.add_argument('--backbone', default='builtin:tiny', help='(%(default)s)')
    parser.add_argument('--precision', default='no', help='no, bf16 or fp16 (%(default)s)')
    parser.add_argument('--device', default='auto', help='(%(default)s)')
    return parser.parse_args(argv)


def scenarios(count: int) -> list[tuple[str, ...]]:
    """Return (boxes, place, side, version, distance) for each file, as in legacy file names."""
    found = [
        (boxes, place, side, version, distance)
        for distance in DISTANCES
        for boxes, place, version in DRIVES
        for side in ('left', 'right')
    ]
    return [found[number % len(found)] for number in range(count)]


def actions_of(boxes: str, place: str, side: str, version: str):
    """Return (ROWS, 3) float32: the first row stands still; exactly 0 or ±1.15."""
    import numpy as np

    mirror = 1 if side == 'left' else -1
    actions = np.zeros((ROWS, 3), np.float32)
    for row, key in enumerate(DRIVES[boxes, place, version], 1):
        ahead, left = KEYS[key]
        actions[row, :2] = ahead * SPEED, mirror * left * SPEED
    return actions


def world(number: int, boxes: str, place: str, side: str, distance: str):
    """Return a scene of one or two red boxes ahead, one behind or beside the other."""
    import numpy as np

    from mobile_vla_ros.sim.scene import BESIDE, COLOURS, Scene, SceneObject, Task, draw_appearance

    rng = np.random.default_rng([number, 57])
    ahead = DISTANCES[distance] + rng.uniform(-0.05, 0.05)
    wide = 0.16 if place == 'vert' else 0.22
    places = [(ahead, 0.0)]
    if boxes == '2box':
        places.append((ahead + 0.6, 0.0) if place == 'vert' else (ahead + 0.1, 0.45))
    things = tuple(
        SceneObject('box', 'red', COLOURS['red'], x, y + rng.uniform(-0.04, 0.04), wide, 0.35)
        for x, y in places
    )
    return Scene(
        seed=number,
        objects=things,
        task=Task(BESIDE, 0, side),
        instruction=f'go to the {side} of the red box',
        start=(0.0, float(rng.uniform(-0.05, 0.05)), 0.0),
        appearance=draw_appearance(rng),
    )


def write_legacy(folder: Path, count: int) -> int:
    """Drive the arena with DRIVES and write legacy files; return the number of sequences."""
    import numpy as np

    from mobile_vla_ros.interop.legacy_layout import write_legacy_layout
    from mobile_vla_ros.sim.arena import Arena

    folder.mkdir(parents=True)
    arena, sequences = Arena(*SIZE), set()
    for number, scenario in enumerate(scenarios(count)):
        boxes, place, side, _, distance = scenario
        scene, actions = world(number, boxes, place, side, distance), actions_of(*scenario[:4])
        arena.reset(scene)
        images = []
        for action in actions:
            # Legacy files hold BGR, although the reference run read them as RGB.
            images.append(np.ascontiguousarray(arena.render()[:, :, ::-1]))
            twist = np.zeros(6)
            twist[[0, 1, 5]] = action
            arena.step(twist, ROW_NS)
        sequences.add(actions.tobytes())
        hour, minute = 10 + number // 60, number % 60
        name = f'episode_20251106_{hour:02d}{minute:02d}12_{"_".join(scenario)}.h5'
        write_legacy_layout(
            folder / name,
            images,
            actions,
            scene.instruction,
            total_duration=ROWS / RATE_HZ,
            action_chunk_size=8,
            obstacle_layout_type='_'.join(scenario[:3]),
            collection_hour=hour,
            collection_minute=minute,
        )
    arena.close()
    return len(sequences)


def command(name: str, *arguments, into: list) -> str:
    """Run a subcommand as a user would, show its output unless it is JSON, and return it."""
    line = ['mobile_vla', name, *map(str, arguments)]
    print('$ ' + ' '.join(line), file=sys.stderr, flush=True)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, '-m', 'mobile_vla_ros.cli.main', *line[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    into.append((name, time.monotonic() - started))
    if '--json' not in arguments:
        print(done.stdout, file=sys.stderr, flush=True)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    return done.stdout


def table(history: list[dict], result: dict) -> str:
    """Return the run as Markdown: every epoch, then baselines and ablations."""
    lines = [
        '| epoch | train_loss_arm_act | val_loss_arm_act | MAE linear_x | MAE linear_y |',
        '| --- | --- | --- | --- | --- |',
    ]
    for row in history:
        lines.append(
            f'| {row["epoch"]} | {row["train_loss_arm_act"]:.4f} | {row["val_loss_arm_act"]:.4f} '
            f'| {row["val_mae_linear_x"]:.3f} m/s | {row["val_mae_linear_y"]:.3f} m/s |'
        )
    lines += [
        '',
        '| on the same validation episodes | loss_arm_act | MAE linear_x | MAE linear_y |',
        '| --- | --- | --- | --- |',
    ]
    rows = {**result['baselines'], '**the policy** (best epoch)': result['policy']}
    for name in ('image_blanked', 'frames_shuffled', 'instruction_swapped'):
        if isinstance(result['policy'].get(name), dict):
            rows[f'the policy, {name.replace("_", " ")}'] = result['policy'][name]
    for name, row in rows.items():
        lines.append(
            f'| {name} | {row["loss_arm_act"]:.4f} | {row["linear_x"]["mae"]:.3f} m/s '
            f'| {row["linear_y"]["mae"]:.3f} m/s |'
        )
    return '\n'.join(lines)


def main(argv=None) -> int:
    args = parse(argv)
    sys.path.insert(0, str(ROOT))
    out = args.out.resolve()
    if out.exists() and any(out.iterdir()):
        print(f'reference_run: error: {out} is not empty; expected a new folder.', file=sys.stderr)
        return 2
    times, started = [], time.monotonic()
    sequences = write_legacy(out / 'legacy', args.files)
    times.append((f'making {args.files} legacy files', time.monotonic() - started))
    command(
        'episodes',
        'import',
        out / 'legacy',
        '--out',
        out / 'episodes',
        '--rate',
        RATE_HZ,
        '--instruction',
        'go to the red box',
        into=times,
    )
    epochs = ('--epochs', args.epochs) if args.epochs else ()
    command(
        'train',
        '--config',
        RECIPE,
        '--data',
        out / 'episodes',
        '--out',
        out / 'run',
        '--backbone',
        args.backbone,
        '--precision',
        args.precision,
        '--device',
        args.device,
        *epochs,
        into=times,
    )
    result = json.loads(
        command(
            'evaluate',
            '--data',
            out / 'episodes',
            '--policy',
            out / 'run' / 'best',
            '--json',
            into=times,
        )
    )
    history = json.loads((out / 'run' / 'history.json').read_text())
    print(table(history, result))
    print(
        f'\n{args.files} files, {sequences} distinct action sequences; '
        f'{result["episodes"]["train"]} episodes train, {result["episodes"]["val"]} validate. '
        + ', '.join(f'{name} {seconds:.0f} s' for name, seconds in times)
        + '.'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
