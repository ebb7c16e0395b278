"""Latency from image to proposal with a policy that computes nothing."""

from pathlib import Path

from mobile_vla_ros.bench.table import Figure, at_most, plain
from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError

SECONDS, RATE_HZ, WIDTH, HEIGHT = 20.0, 30.0, 1280, 720
LIMIT_MS = 15.0
TIMEOUT_S = 180.0
CAMERA, INFERENCE = 'bench_eye', 'inference'
POLICY = 'builtin:noop'


def measure(folder: Path, *, quiet: bool = False, seconds: float = SECONDS) -> list[Figure]:
    """
    Send raw images through the live inference node and measure the latency.

    :param folder: empty; keeps the logs.
    :raises UserError: if a node exits early or no proposal arrives.
    """
    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes
    from mobile_vla_ros.bringup.spec import NodeSpec
    from mobile_vla_ros.bringup.stacks import DRIVE

    inference = [
        node
        for node in DRIVE.nodes(policy=POLICY, image_transport='raw')
        if node.name == INFERENCE
    ]
    camera = NodeSpec(
        CAMERA,
        CAMERA,
        sends_images=True,
        parameters={
            'seconds': float(seconds),
            'rate_hz': RATE_HZ,
            'width': WIDTH,
            'height': HEIGHT,
        },
    )
    with Processes(folder / 'log', isolated()) as processes:
        processes.start(inference)
        processes.start(camera, finite=True)
        try:
            processes.wait(CAMERA, TIMEOUT_S + seconds)
        except (ProcessEnded, TimeoutError) as error:
            raise UserError(f'the benchmark stopped: {error}') from error
        lines = processes[CAMERA].json_lines()
    if not lines:
        raise UserError(
            "the benchmark's camera printed no result", got=str(folder / 'log' / f'{CAMERA}.log')
        )
    found = lines[-1]
    part = 'latency'
    median, p99, worst = found['sent_ms']
    own, own_p99 = found['own_ms']
    return [
        plain(part, f'images {WIDTH}x{HEIGHT} raw at {RATE_HZ:g} Hz', found['frames']),
        plain(part, 'answered by a proposal', found['answered']),
        plain(part, 'callback to proposal, median', own, 'ms'),
        at_most(part, 'callback to proposal, p99', own_p99, LIMIT_MS, 'ms'),
        plain(part, 'sent to proposal received, median', median, 'ms'),
        at_most(part, 'sent to proposal received, p99', p99, LIMIT_MS, 'ms'),
        plain(part, 'sent to proposal received, worst', worst, 'ms'),
    ]
