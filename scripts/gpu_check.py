#!/usr/bin/env python3
"""
Ask a GPU everything that only a GPU can tell, unattended: --out gets a JSON and a table.

Needs torch, transformers, peft, accelerate, h5py, OpenCV and what they bring; no ROS, MuJoCo or
network. Each part runs in a process of its own, and what it finds is written as it is found, so
that a part that fails, crashes or takes too long costs only itself. A second command with the
same --out adds its parts. Exit status 1 if a part failed.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from functools import partial
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')  # CUDA starts in the parts alone
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
TEXT = 'go to the left'
CAMERA = (720, 1280, 3)
SAME_LOSS, SAME_TOKENS = 0.05, 5e-3  # relative
SEED_EPISODES = 57
CAMERA_HZ = 30
SMALL = {
    'text_config': {
        'embed_dim': 32,
        'layers': 2,
        'ffn_dim': 64,
        'attention_heads': 2,
        'vocab_size': 32,
        'max_position_embeddings': 128,
    },
    'vision_config': {
        'hidden_size': 32,
        'intermediate_size': 64,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'image_size': 56,
        'patch_size': 14,
    },
    'latent_query_num': 4,
}
ANY_VERDICT = ['good', 'poor', 'bad']


class Skipped(Exception):
    """This machine cannot do a part; says why."""


class Run:
    """
    What a part is given: the settings, and where it reports.

    :param tell: takes the name and the value of each figure as it is found.
    """

    def __init__(self, args: argparse.Namespace, device: str, tell):
        self.args, self.device, self.tell = args, device, tell
        self.cuda, self.small, self.work = device.startswith('cuda'), args.small, args.work
        self.broken: list[str] = []

    def must(self, kept, sentence: str) -> None:
        """Let the part fail with this sentence, unless the promise is kept."""
        if not kept:
            self.broken.append(sentence)
            self.tell('broken', self.broken)

    def need_cuda(self) -> None:
        if not self.cuda:
            raise Skipped('no CUDA')

    def folder(self, name: str, write) -> Path:
        """Return a folder of the work folder; if it is missing, `write` writes it, or none."""
        path = self.work / f'{name}{"_small" if self.small else ""}'
        if not path.exists():
            began, partial_path = time.perf_counter(), path.with_name(f'{path.name}.{os.getpid()}')
            write(partial_path)
            partial_path.rename(path)
            self.tell(f'{name}_written_s', round(time.perf_counter() - began, 1))
        return path

    def policy(self) -> Path:
        """Return a folder with `backbone`, of random weights, and `policy` on it: at full size."""
        from transformers import Kosmos2Config

        from mobile_vla_ros.bench.drive.step_bundle import write_policy

        config = Kosmos2Config(**SMALL) if self.small else None
        path = self.work / f'policy{"_small" if self.small else ""}'
        if not (path / 'policy' / 'policy.json').exists():
            shutil.rmtree(path, ignore_errors=True)
            write_policy(path, config)
        return path

    def episodes(self, count: int) -> Path:
        """Return a folder of 18-frame episodes of 1280x720."""
        from mobile_vla_ros.bench.train.episodes import busy_episodes

        return self.folder(f'episodes_{count}', lambda path: busy_episodes(path, count))

    def load(self, precision: str, device: str = '', **more):
        from mobile_vla_ros.runtime.loading import PolicySettings, load_policy

        settings = PolicySettings(
            device=device or self.device, precision=precision, offline=True, **more
        )
        return load_policy(str(self.policy() / 'policy'), settings).policy

    def camera(self, rate_hz: float = 10.0):
        """Yield frames for ever."""
        import numpy as np

        from mobile_vla_ros.types import Frame

        rng, period_ns = np.random.default_rng(0), round(1e9 / rate_hz)
        images = [rng.integers(0, 256, CAMERA, dtype=np.uint8) for _ in range(8)]
        for number in itertools.count(1):
            yield Frame(images[number % 8], number * period_ns, 0)

    def train(self, out: str, **values) -> dict:
        """Train in a process of its own: accelerate has one precision a process."""
        return in_child(lambda _: self.train_here(out, **values))

    def train_here(self, out: str, **values) -> dict:
        from mobile_vla_ros.training.config import configs_of
        from mobile_vla_ros.training.loop import train

        tiny = {'head_hidden': 32, 'head_layers': 1, 'backbone': str(self.policy() / 'backbone')}
        given = {
            'data': str(self.episodes(5 if self.small else 16)),
            'out': str(self.work / 'runs' / out),
            'epochs': 2,
            'accumulate': 2,
            'accept_verdicts': ANY_VERDICT,
            'device': self.device,
            'offline': True,
            **(tiny if self.small else {}),
            **values,
        }
        began = time.perf_counter()
        train(*configs_of(given), log=lambda _: None)
        rows = json.loads((Path(given['out']) / 'history.json').read_text())
        return {
            'wall_s': round(time.perf_counter() - began, 1),
            'epochs': len(rows),
            'epoch_s': round(statistics.median(row['seconds'] for row in rows), 2),
            'waiting_share': round(max(row['waiting_share'] for row in rows), 4),
            'train_loss': [row['train_loss_arm_act'] for row in rows],
            'val_loss': [row['val_loss_arm_act'] for row in rows],
            'peak_gb': self.peak_gb(),
        }

    def sync(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize(self.device)

    def peak_gb(self) -> float | None:
        """Return the most memory that tensors took on the GPU, in 10^9 bytes."""
        if not self.cuda:
            return None
        import torch

        return round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)

    def timed(self, work, turns: int) -> dict:
        for _ in range(3):
            work()
        self.sync()
        took = []
        for _ in range(turns):
            began = time.perf_counter()
            work()
            self.sync()
            took.append((time.perf_counter() - began) * 1e3)
        return {'turns': turns, **percentiles(took)}


def percentiles(ms: list[float]) -> dict:
    ms = sorted(ms)
    p99 = ms[math.ceil(0.99 * len(ms)) - 1]
    found = {'median_ms': statistics.median(ms), 'p99_ms': p99, 'max_ms': ms[-1]}
    return {name: round(value, 3) for name, value in found.items()}


def environment(run: Run) -> None:
    """What this machine is."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    run.tell('python', platform.python_version())
    run.tell('machine', f'{platform.machine()}, {os.cpu_count()} cores')
    run.tell('cuda', torch.version.cuda)
    for name in ('torch', 'transformers', 'peft', 'accelerate', 'h5py', 'safetensors', 'numpy'):
        try:
            run.tell(name, version(name))
        except PackageNotFoundError:
            run.tell(name, 'not installed')
    if run.cuda:
        one = torch.cuda.get_device_properties(run.device)
        run.tell('gpu', f'{one.name}, {one.total_memory / 1e9:.1f} GB, {one.major}.{one.minor}')
        asked = ['nvidia-smi', '--query-gpu=driver_version,power.limit', '--format=csv,noheader']
        try:
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            run.tell('driver, power limit', done.stdout.strip() or done.stderr.strip()[:200])
        except OSError as error:  # a Jetson has none
            run.tell('driver, power limit', str(error))


def architecture(run: Run) -> None:
    """Is it Kosmos-2? Its resampler sees all positions, on this device as on the CPU."""
    import torch

    from mobile_vla_ros.model.backbone import load_backbone
    from mobile_vla_ros.model.backbone_check import image_tokens

    model = load_backbone('builtin:tiny').model.eval()
    side = model.config.vision_config.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = {}
    with torch.no_grad():
        found['cpu'] = image_tokens(model, pixels)
        model.to(run.device)
        for kind in ('sdpa', 'eager'):
            model.set_attn_implementation(kind)
            found[kind] = image_tokens(model, pixels.to(run.device)).cpu()
    for kind in ('cpu', 'sdpa'):
        worst = float((found[kind] - found['eager']).abs().max() / found['eager'].abs().max())
        run.tell(f'{kind} against eager, relative', worst)
        run.must(worst <= SAME_TOKENS, f'image tokens of {kind} and eager differ by {worst:.2g}')


def golden(run: Run) -> None:
    """builtin:demo reproduces its golden frames in every precision."""
    from mobile_vla_ros.runtime.loading import PolicySettings, load_policy

    for precision in ('fp32', 'bf16', 'fp16', 'auto'):
        settings = PolicySettings(device=run.device, precision=precision, offline=True)
        ready = load_policy('builtin:demo', settings)
        run.tell(precision, ready.golden_sentence)
        run.must(ready.golden_ok, ready.golden_sentence)


def training(run: Run) -> None:
    """builtin:tiny learns in every precision as on the CPU."""
    cpu = run.train('cpu', device='cpu', precision='no')
    run.tell('cpu no', cpu)
    ways = {
        'bf16': {},
        'no': {},
        'fp16': {},
        'fp16 checkpointing': {'activation_checkpointing': True},
    }
    ways['fp16 weights'] = {'backbone_dtype': 'float16'}
    for name, values in ways.items():
        precision = name.split()[0]
        if not run.cuda and precision != 'bf16':
            continue
        one = run.train(name.replace(' ', '_'), precision=precision, **values)
        run.tell(name, one)
        off = abs(one['val_loss'][-1] / cpu['val_loss'][-1] - 1)
        run.must(off <= SAME_LOSS, f'{name}: the loss is {off:.1%} off that of the CPU')


def agree(run: Run) -> None:
    """Full size, random weights: features and actions of each precision against the CPU's."""
    import numpy as np
    import torch

    shots = list(itertools.islice(run.camera(), 4))

    def of(policy) -> tuple:
        actions = policy.spec.actions.normalise(policy.infer(shots, TEXT).twists)
        return actions, torch.stack(
            [policy._features[one.stamp_ns].float().cpu() for one in shots]
        )

    wanted, features = of(run.load('fp32', 'cpu'))
    for precision in ('fp32', 'bf16', 'fp16'):
        actions, own = of(run.load(precision))
        run.tell(
            f'{precision}, features, relative', float((own - features).norm() / features.norm())
        )
        run.tell(f'{precision}, action, worst', float(np.abs(actions - wanted).max()))
        run.must(np.isfinite(actions).all(), f'{precision}: NaN or inf')


def step(run: Run) -> None:
    """A driving step at full size: one new frame of 1280x720."""
    ways = {'bf16': {}, 'fp16': {}, 'fp32': {}}
    if run.cuda:
        ways |= {'bf16, CUDA graph': {'cuda_graph': True}, 'bf16, compiled': {'compile': True}}
    for name, more in ways.items():
        try:
            run.tell(name, in_child(partial(one_way, run, name[:4], more)))
        except RuntimeError as error:
            run.must(False, f'{name}: {error}')
    if not run.cuda:
        run.tell('CUDA graph, compiled', 'skipped: no CUDA')


def one_way(run: Run, precision: str, more: dict, _tell) -> dict:
    began = time.perf_counter()
    policy = run.load(precision, **more)
    loaded_s, turns = round(time.perf_counter() - began, 1), 3 if run.small else 200
    new_frame = stepper(run, policy)

    def window() -> None:
        policy.reset()
        new_frame()

    return {
        'load_s, file cached': loaded_s,
        'step': run.timed(new_frame, turns),
        'step encoding the window': run.timed(window, max(3, turns // 5)),
        'peak_gb': run.peak_gb(),
        'process_gb': round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def stepper(run: Run, policy, rate_hz: float = 10.0):
    """Return a function that does a step with one new frame; the first one encodes a window."""
    camera = run.camera(rate_hz)
    window = deque(itertools.islice(camera, policy.spec.window), maxlen=policy.spec.window)

    def step() -> None:
        window.append(next(camera))
        policy.infer(list(window), TEXT)

    return step


def rate(run: Run) -> None:
    """A camera of 30 Hz for a minute: how many plans come after the next frame."""
    seconds = 1 if run.small else 60
    for name, more in {'bf16': {}, 'bf16, CUDA graph': {'cuda_graph': True}}.items():
        if more and not run.cuda:
            continue
        policy = run.load('bf16', **more)
        new_frame, took = stepper(run, policy, CAMERA_HZ), []
        new_frame()
        began = time.perf_counter()
        for number in range(seconds * CAMERA_HZ):
            due = began + number / CAMERA_HZ
            time.sleep(max(0.0, due - time.perf_counter()))
            new_frame()
            run.sync()
            took.append((time.perf_counter() - due) * 1e3)
        late = sum(one > 1e3 / CAMERA_HZ for one in took)
        run.tell(name, {'frames': len(took), 'late': late, **percentiles(took)})
        run.must(not run.cuda or late <= len(took) // 100, f'{name}: {late} of {len(took)} late')


def resume(run: Run) -> None:
    """SIGTERM in the second epoch, then the same training: the losses of one not stopped."""
    precision = 'fp16' if run.cuda else 'no'
    values = {'epochs': 3, 'precision': precision, 'save_every_min': 0.0}
    whole = run.train('whole', **values)
    out, history = run.work / 'runs' / 'stopped', run.work / 'runs' / 'stopped' / 'history.json'
    process = FORK.Process(target=until_stopped, args=(run, 'stopped', values))
    process.start()
    while process.is_alive() and not history.exists():
        time.sleep(0.01)
    process.terminate()
    process.join()
    run.tell('exit status of the stopped one', process.exitcode)
    run.must(process.exitcode == STOPPED, f'not stopped before its end: {process.exitcode}')
    resumed = run.train(out.name, **values)
    off = max(abs(a / b - 1) for a, b in zip(resumed['val_loss'], whole['val_loss'], strict=True))
    run.tell('val_loss', {'whole': whole['val_loss'], 'resumed': resumed['val_loss']})
    run.tell('largest relative difference', off)
    run.must(off <= (SAME_LOSS if run.cuda else 0), f'the losses differ by {off:.2g}')


def until_stopped(run: Run, out: str, values: dict) -> None:
    from mobile_vla_ros.training.loop import TrainingStopped

    try:
        run.train_here(out, **values)
    except TrainingStopped:
        os._exit(STOPPED)


def oom(run: Run) -> None:
    """A training that does not fit: a sentence with the remedy."""
    run.need_cuda()
    found = in_child(lambda _: too_large(run))
    run.tell('said', found)
    run.must('--activation_checkpointing' in found, f'no remedy: {found}')


def too_large(run: Run) -> str:
    import torch

    from mobile_vla_ros.errors import UserError

    torch.cuda.set_per_process_memory_fraction(0.01, run.device)
    try:
        run.train_here(
            'oom', batch_size=8, precision='no', backbone=str(run.policy() / 'backbone')
        )
    except UserError as error:
        return str(error)
    return 'it fitted into a hundredth of the memory'


def memory(run: Run) -> None:
    """The peak of a training step at full size, batch 1 to 8, beside what is counted."""
    run.need_cuda()
    for frozen, mixed, saving, pieces in [
        *(('bfloat16', 'bfloat16', True, number) for number in (1, 2, 4, 8)),
        *(('bfloat16', 'bfloat16', False, number) for number in (1, 2)),
        ('float16', 'float16', True, 1),
        ('float32', 'float16', True, 1),
    ]:
        name = f'{mixed} over {frozen}{", checkpointing" if saving else ""}, batch {pieces}'
        try:
            found = in_child(partial(one_memory, run, frozen, mixed, saving, pieces))
        except RuntimeError as error:
            run.must('out of memory' in str(error), f'{name}: {error}')
            found = f'does not fit: {error}'
        run.tell(name, found)


def one_memory(run: Run, frozen: str, mixed: str, saving: bool, pieces: int, _tell) -> dict:
    """Do optimiser steps on pieces of 18 frames; see `bench train memory` for the count."""
    import torch

    from mobile_vla_ros.bench.train import memory as counted
    from mobile_vla_ros.evaluation.metrics import motion_loss
    from mobile_vla_ros.model.backbone import LoraSettings, load_backbone
    from mobile_vla_ros.model.network import build_network

    dtype, amp = getattr(torch, frozen), getattr(torch, mixed)
    networks = tuple(counted.full_size(dtype, checkpointing=on) for on in (False, True))
    expected = counted.needed(pieces, dtype, amp, networks)[saving].total / 1e9
    backbone = load_backbone(str(run.policy() / 'backbone'), offline=True, dtype=dtype)
    network = build_network(
        backbone,
        LoraSettings(),
        motion_dims=counted.MOTION_DIMS,
        chunk=counted.CHUNK,
        activation_checkpointing=saving,
    )
    network = network.to(run.device).train()
    trained = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4)
    scaler = torch.amp.GradScaler(run.device, enabled=mixed == 'float16')
    frames, window, side = counted.FRAMES, counted.WINDOW, backbone.image.size
    put = {'device': run.device}
    pixels = torch.randn(pieces * frames, 3, side, side, **put)
    ids = torch.full((pieces, counted.TEXT_TOKENS), 4, **put)
    lengths = torch.full((pieces,), counted.TEXT_TOKENS, **put)
    first = torch.arange(frames - window + 1, **put)[:, None] + torch.arange(window, **put)
    windows = torch.cat([first + number * frames for number in range(pieces)])
    shape = (len(windows), window, counted.CHUNK)
    wanted, real = torch.zeros(*shape, 2, **put), torch.ones(shape, dtype=torch.bool, **put)

    def one() -> None:
        with torch.autocast('cuda', amp):
            motion, _ = network(pixels, ids, lengths, [frames] * pieces, windows)
        scaler.scale(motion_loss(motion.float(), wanted, real)).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    one()
    torch.cuda.reset_peak_memory_stats(run.device)
    times = run.timed(one, 3)
    return {'counted_gb': round(expected, 2), 'peak_gb': run.peak_gb(), **times}


def seed(run: Run) -> None:
    """config/train_seed.yaml as it stands: FP16, 57 episodes of 1280x720, 20 epochs."""
    from mobile_vla_ros.bringup.share import config_file
    from mobile_vla_ros.training.flags import read_config

    recipe = read_config(config_file('train_seed.yaml'))
    values = {**recipe, 'data': str(run.episodes(5 if run.small else SEED_EPISODES))}
    values['backbone'] = str(run.policy() / 'backbone')
    if run.small:
        values['epochs'] = 1
    if not run.cuda:
        values['precision'] = 'bf16'
    found = run.train('seed', **values)
    run.tell('precision', values['precision'])
    for name, value in found.items():
        run.tell(name, value)
    losses = [*found['train_loss'], *found['val_loss']]
    run.must(all(map(math.isfinite, losses)), 'a loss is NaN or inf')
    run.must(found['epochs'] == values['epochs'], f'{found["epochs"]} epochs')


PARTS = {
    one.__name__: one
    for one in (
        *(environment, architecture, golden, training, agree, step, rate),
        *(memory, oom, resume, seed),
    )
}
FORK = multiprocessing.get_context('fork')
STOPPED = 75


def in_child(work, tell=lambda name, value: None, limit_s: float | None = None):
    """
    Return what a function returns in a process of its own, which frees all that it took.

    :param work: called with a function that passes a name and a value on to `tell`.
    :param limit_s: kill it and its own processes after this time.
    :raises Skipped: as the function does.
    :raises RuntimeError: if it fails, dies or takes too long; the sentence says which.
    """
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_child, args=(work, send, limit_s is not None))
    process.start()
    send.close()
    end_s = None if limit_s is None else time.monotonic() + limit_s
    try:
        while receive.poll(None if end_s is None else max(0.0, end_s - time.monotonic())):
            kind, *values = receive.recv()
            if kind == 'found':
                tell(*values)
            elif kind == 'result':
                return values[0]
            else:
                raise (Skipped if kind == 'skipped' else RuntimeError)(values[0])
        raise RuntimeError(f'stopped after {limit_s:g} s')
    except EOFError:
        process.join()
        raise RuntimeError(f'died with status {process.exitcode}') from None
    finally:
        process.join(5.0)
        if process.exitcode is None:
            os.kill(process.pid if limit_s is None else -process.pid, signal.SIGKILL)
            process.join()


def _child(work, send, leads: bool) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if leads:
        os.setpgid(0, 0)
    try:
        send.send(('result', work(lambda *found: send.send(('found', *found)))))
    except Skipped as why:
        send.send(('skipped', str(why)))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f'{Path(last.filename).name}:{last.lineno}'
        send.send(('failed', f'{type(error).__name__}: {error} ({where})'[:600]))


def card_of(name: str) -> tuple[str, str]:
    """Return the device and the name of its GPU; this starts CUDA."""
    import torch

    from mobile_vla_ros.model.device import pick_device

    device = pick_device(name)
    return str(device), torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'


def measured(args: argparse.Namespace, device: str, part: str, keep) -> dict:
    """Return a part's status and figures; `keep` is called whenever there are more."""
    found = {'status': 'running', 'device': device, 'small': args.small, 'figures': {}}
    began = time.perf_counter()

    def tell(name, value) -> None:
        (found if name == 'broken' else found['figures'])[name] = value
        keep(found)

    keep(found)
    shutil.rmtree(args.work / 'runs', ignore_errors=True)
    try:
        in_child(lambda send: PARTS[part](Run(args, device, send)), tell, args.limit)
        found['status'] = 'failed' if found.get('broken') else 'ok'
    except Skipped as why:
        found['status'] = f'skipped: {why}'
    except RuntimeError as error:
        found['status'] = 'failed'
        tell('broken', [*found.get('broken', ()), str(error)])
    found['seconds'] = round(time.perf_counter() - began, 1)
    keep(found)
    return found


def rows_of(parts: dict) -> list[list[str]]:
    """Return part, figure and value of everything that was found."""
    rows = []
    for part, found in parts.items():
        rows.append([f'**{part}**', found['status'], f'{found.get("seconds", 0):g} s'])
        rows += [[part, 'broken', sentence] for sentence in found.get('broken', ())]
        for name, value in found['figures'].items():
            shown = ', '.join(map(_shown, value.items())) if isinstance(value, dict) else value
            rows.append([part, name, _number(shown)])
    return rows


def _shown(item: tuple) -> str:
    return f'{item[0]} {_number(item[1])}'


def _number(value) -> str:
    if isinstance(value, list):
        return ' '.join(map(_number, value if len(value) < 5 else [value[0], '…', value[-1]]))
    return f'{value:.5g}' if isinstance(value, float) else str(value)


def keep_part(path: Path, card: str, parts: dict, part: str, found: dict) -> None:
    """Write the result with a part as far as it is."""
    from mobile_vla_ros.files import replaced
    from mobile_vla_ros.text_table import markdown

    parts[part] = found
    with replaced(path) as file:
        json.dump({'card': card, 'parts': parts}, file, indent=1, default=float)
    with replaced(path.with_suffix('.md')) as file:
        file.write(markdown(('part', 'figure', 'value'), rows_of(parts)) + '\n')


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        epilog='example: python3 scripts/gpu_check.py --out docs/benchmarks',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='for the result')
    parser.add_argument(
        '--parts', nargs='+', choices=PARTS, default=list(PARTS), help=f'{", ".join(PARTS)} (all)'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1 …')
    parser.add_argument(
        '--work',
        type=Path,
        default=Path(tempfile.gettempdir()) / 'gpu_check',
        metavar='DIR',
        help='for weights, episodes and runs, 15 GB at most; kept for the next time (%(default)s)',
    )
    parser.add_argument(
        '--limit', type=float, default=3600.0, metavar='S', help='seconds a part may take (3600)'
    )
    parser.add_argument(
        '--small', action='store_true', help='a tiny network of random weights throughout'
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    args.work = args.work.resolve()
    try:
        device, card = in_child(lambda _: card_of(args.device))
    except RuntimeError as error:
        sys.exit(f'gpu_check: {error}')
    import mobile_vla_ros.runtime.loading
    import mobile_vla_ros.training.loop  # noqa: F401 - once here, not in every part

    slug = re.sub(r'[^a-z0-9]+', '_', card.lower()).strip('_')
    path = args.out / f'gpu_{slug}.json'
    parts = json.loads(path.read_text())['parts'] if path.exists() else {}
    status = 0
    for part in args.parts:
        broken = parts.get('architecture', {}).get('status') == 'failed'
        if broken and part not in ('environment', 'architecture'):
            found = {'status': 'not run: architecture failed', 'figures': {}}
        else:
            keep = partial(keep_part, path, card, parts, part)
            found = measured(args, device, part, keep)
        keep_part(path, card, parts, part, found)
        status |= found['status'] != 'ok' and not found['status'].startswith('skipped')
        print(f'{part}: {found["status"]}', *found.get('broken', ()), sep='\n  ', flush=True)
    print(path.with_suffix('.md').read_text())
    return status


if __name__ == '__main__':
    sys.exit(main())
