"""Cost of the black box: the same recorder, while it only holds, and then while it records."""

from pathlib import Path

from mobile_vla_ros.bench.process import Cost
from mobile_vla_ros.bench.record.load import RATE_HZ, RECORDER, START_S, Events, recorder, source
from mobile_vla_ros.bench.table import Figure, at_most, plain
from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError

HELD_S = 10.0
CORES = 0.05  # more than recording
SIZE = (1280, 720)


def measure(folder: Path, seconds: float, *, quiet: bool = False) -> list[Figure]:
    """
    Hold for a while, then record for as long, at 30 Hz and 1280x720.

    :param folder: empty; keeps episodes and logs.
    :param seconds: of each phase, at least a few more than it takes to fill the black box.
    :raises UserError: if a node exits early.
    """
    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes

    filling_s = min(HELD_S, seconds)
    with Processes(folder / 'log', isolated()) as processes:
        processes.start(recorder(folder / 'takes', {'ring_s': HELD_S}))
        processes.start(
            source(seconds=seconds, rate_hz=RATE_HZ, size=SIZE, settle_s=filling_s + seconds),
            finite=True,
        )
        events = Events(processes, quiet)
        try:
            events.wait('receives', START_S)
            events.pause(filling_s, what='fill')
            cost = Cost(processes[RECORDER].process.pid)
            events.wait('started', seconds + START_S, bar_s=seconds, what='hold')
            holding, held_mb = cost.cores(), cost.peak_mb()
            cost = Cost(processes[RECORDER].process.pid)
            events.wait('silent', seconds + START_S, bar_s=seconds, what='record')
            recording = cost.cores()
            events.wait('ended', START_S)
        except ProcessEnded as error:
            raise UserError(f'the benchmark stopped: {error}') from error
    part = 'ring'
    return [
        plain(part, 'recorder that records, mean', recording, 'cores'),
        plain(part, 'recorder that holds, mean', holding, 'cores'),
        at_most(part, 'more than recording', holding - recording, CORES, 'cores'),
        plain(part, f'peak memory with {HELD_S:g} s held', held_mb, 'MB', 0),
    ]
