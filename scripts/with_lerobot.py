#!/usr/bin/env python3
"""
Have the real LeRobot read what `mobile_vla episodes export --format lerobot` writes, and train.

Makes an environment of its own with the newest lerobot that installs on the newest Python here (it
takes gigabytes and minutes), exports episodes, reads every frame with delta_timestamps and trains
ACT for a few steps on the CPU. Prints which version did.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHONS = ('python3.13', 'python3.12', 'python3.11', 'python3')
CACHE = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'mobile_vla_lerobot'
WORDS = ('go to the red box', 'turn to the window')
EPISODES, FRAMES, SIZE = 3, 60, (96, 96)
BATCH, AHEAD, BEFORE = 8, 10, 3
WRITTEN = 30  # frames by lerobot itself


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        epilog='example: .venv/bin/python scripts/with_lerobot.py ~/mobile_vla_takes',
    )
    parser.add_argument('episodes', nargs='?', type=Path, help='folder (default: drawn ones)')
    parser.add_argument('--env', type=Path, default=CACHE, help='folder (default: %(default)s)')
    parser.add_argument('--python', help=f'(default: the first of {", ".join(PYTHONS)} that runs)')
    parser.add_argument('--video', choices=('h264', 'av1'), help='instead of images')
    parser.add_argument('--state', choices=('odom', 'command'), default='command')
    parser.add_argument('--steps', type=int, default=5, help='of training (default: %(default)s)')
    parser.add_argument('--own', action='store_true', help='import sets of lerobot itself instead')
    parser.add_argument('--inside', type=Path, metavar='SET', help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def environment(folder: Path, python: str | None) -> Path:
    """Return the Python of the environment, which is made unless it is there."""
    inside = folder / 'bin' / 'python'
    if (folder / 'whole').exists():
        return inside
    candidates = [python] if python else PYTHONS
    found = [one for one in candidates if shutil.which(one) and not _status(one, '-c', '')]
    if not found:
        sys.exit(f'with_lerobot: no Python runs; tried {", ".join(candidates)}')
    print(f'with_lerobot: making {folder}', flush=True)
    subprocess.run([found[0], '-m', 'venv', '--clear', folder], check=True)
    install = [inside, '-m', 'pip', 'install', '--quiet', '--no-cache-dir']
    # Older releases have everything without extras, and only warn that they do not know these.
    subprocess.run([*install, 'lerobot[dataset,training]'], check=True)
    (folder / 'whole').touch()
    return inside


def _status(*command: str) -> int:
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode


def draw(folder: Path) -> None:
    """Write small episodes: a square that moves as the commands say."""
    import numpy as np

    from mobile_vla_ros.episode.storage.schema import EpisodeInfo
    from mobile_vla_ros.episode.storage.writer import EpisodeWriter
    from mobile_vla_ros.images.compressed import encode
    from mobile_vla_ros.types import Command

    random = np.random.default_rng(0)
    for number in range(EPISODES):
        first_ns = 1_800_000_000_000_000_000 + number * 60_000_000_000
        writer = EpisodeWriter(folder, EpisodeInfo(WORDS[number % 2]), first_ns)
        for frame in range(FRAMES):
            at_ns = first_ns + frame * 100_000_000
            pixels = random.integers(0, 60, (*SIZE[::-1], 3), np.uint8)
            pixels[frame : frame + 20, 30:50] = 200
            writer.add_frame(encode(pixels), at_ns, at_ns + 5_000_000)
            twist = np.array([0.2, 0, 0, 0, 0, np.sin(frame / 10)])
            writer.add_command(Command(twist, at_ns, at_ns, 'teleop'))
        writer.close('success')


def read_and_train(root: Path, steps: int) -> None:
    """Read every frame of a set, and train on it; runs where lerobot is."""
    import importlib.metadata

    import torch
    from lerobot.configs.types import FeatureType
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    try:
        from lerobot.datasets.utils import dataset_to_policy_features
    except ImportError:
        from lerobot.utils.feature_utils import dataset_to_policy_features

    info = json.loads((root / 'meta/info.json').read_text())
    fps, cameras = info['fps'], [one for one in info['features'] if '.images.' in one]
    print('lerobot', importlib.metadata.version('lerobot'), 'on Python', sys.version.split()[0])
    deltas = {'action': [step / fps for step in range(AHEAD)]}
    windows = deltas | {one: [-step / fps for step in range(BEFORE, -1, -1)] for one in cameras}
    every = LeRobotDataset('local/set', root=root, delta_timestamps=windows, **_backend())
    seen = []
    for batch in torch.utils.data.DataLoader(every, batch_size=BATCH):
        for name in cameras:
            assert batch[name].shape[1:3] == (BEFORE + 1, 3), batch[name].shape
            assert float(batch[name].min()) >= 0 and float(batch[name].max()) <= 1
        assert batch['action'].shape[1] == AHEAD and bool(batch['action'].isfinite().all())
        seen += batch['index'].tolist()
    assert seen == list(range(info['total_frames'])), 'every frame once, in order'
    print(f'read {len(seen)} frames of {every.num_episodes} episodes with windows and chunks')

    train = LeRobotDataset('local/set', root=root, delta_timestamps=deltas, **_backend())
    features = dataset_to_policy_features(train.meta.features)
    config = ACTConfig(
        input_features={k: v for k, v in features.items() if v.type is not FeatureType.ACTION},
        output_features={k: v for k, v in features.items() if v.type is FeatureType.ACTION},
        chunk_size=AHEAD, n_action_steps=AHEAD, dim_model=64, n_heads=2, dim_feedforward=128,
        n_encoder_layers=1, n_vae_encoder_layers=1, pretrained_backbone_weights=None, device='cpu',
    )  # fmt: skip
    policy = ACTPolicy(config).train()
    before, _ = make_pre_post_processors(config, dataset_stats=train.meta.stats)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    batches = iter(torch.utils.data.DataLoader(train, batch_size=BATCH, shuffle=True))
    losses = []
    for _, batch in zip(range(steps), batches, strict=False):
        loss, _ = policy.forward(before(batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(loss == loss and loss < float('inf') for loss in losses), losses
    print('trained ACT, loss', ' '.join(f'{loss:.2f}' for loss in losses))


def write_own(folder: Path) -> None:
    """Write sets by lerobot itself, of images and of video; print what a 720p frame costs it."""
    import time

    import numpy as np
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = ['x.vel', 'theta.vel']
    features = {'action': {'dtype': 'float32', 'shape': (2,), 'names': names}}
    random = np.random.default_rng(0)
    smooth = random.integers(0, 256, (WRITTEN, 18, 32, 3), np.uint8).repeat(40, 1).repeat(40, 2)
    for kind in ('image', 'video'):
        image = {'dtype': kind, 'shape': (720, 1280, 3), 'names': ['height', 'width', 'channels']}
        own = LeRobotDataset.create(
            'local/own', fps=10, root=folder / kind, use_videos=kind == 'video',
            features={**features, 'observation.images.front': image},
        )  # fmt: skip
        started_s = time.process_time() + sum(os.times()[2:4])
        for frame, pixels in enumerate(smooth):
            action = np.array([0.2, frame / 10], np.float32)
            own.add_frame({'observation.images.front': pixels, 'action': action, 'task': WORDS[0]})
        own.save_episode()
        getattr(own, 'finalize', lambda: None)()
        cpu_s = time.process_time() + sum(os.times()[2:4]) - started_s
        print(f'lerobot writes a 720p frame as {kind} in {cpu_s / WRITTEN * 1e3:.0f} ms of CPU')


def _backend() -> dict[str, str]:
    """Return what decodes video: torchcodec needs an FFmpeg that is installed."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return {'video_backend': 'pyav'}
    return {}


def main(argv=None) -> int:
    args = parse(argv)
    if args.inside:
        write_own(args.inside) if args.own else read_and_train(args.inside, args.steps)
        return 0
    python = environment(args.env.expanduser().absolute(), args.python)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'set'
        ours = [sys.executable, '-m', 'mobile_vla_ros.cli.main', 'episodes']
        offline = {**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HOME': folder}
        offline.pop('PYTHONPATH', None)
        theirs = [python, '-W', 'ignore', __file__, '--inside', out, '--steps', str(args.steps)]
        if args.own:
            subprocess.run([*theirs, '--own'], env=offline, check=True)
            return subprocess.run([*ours, 'import', out, '--out', Path(folder) / 'in']).returncode
        episodes = args.episodes or Path(folder) / 'episodes'
        if args.episodes is None:
            draw(episodes)
        more = ['--state', args.state, *(['--video', args.video] if args.video else [])]
        command = [*ours, 'export', episodes, '--out', out, '--format', 'lerobot', *more]
        subprocess.run(command, check=True)
        return subprocess.run(theirs, env=offline).returncode


if __name__ == '__main__':
    sys.exit(main())
