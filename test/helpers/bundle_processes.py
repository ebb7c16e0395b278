"""Processes that are killed, or whose disk is full, while they save a policy."""

import json
import os
import signal
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.bundle import load_bundle, save_bundle

STEPS = ('open', 'os.mkdir', 'os.chmod', 'os.rename', 'os.remove', 'os.listdir')
AFTER_S = [0.001 * number for number in range(1, 40, 2)]


def kill(source: Path, out: Path):
    """Save in one child after another; each is killed one step, or a moment, later."""
    loaded = load_bundle(source, merge=False)
    statuses, step = [], 0
    while True:
        status = _child(lambda at=step: _die_at(at), out / f'step{step}', loaded)
        statuses.append(status)
        step += 1
        if status == 0:
            break
    for number, seconds in enumerate(AFTER_S):
        statuses.append(
            _child(
                lambda after=seconds: signal.setitimer(signal.ITIMER_REAL, after),
                out / f'moment{number}',
                loaded,
            )
        )
    print(json.dumps(statuses))


def _child(arm, folder: Path, loaded) -> int:
    """Return 0 when a child saved the policy, or the signal that ended it."""
    pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return -status if status < 0 else status
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends a process immediately, as SIGKILL does
    arm()
    save_bundle(folder, loaded.network, loaded.spec)
    os._exit(0)


def _die_at(step: int):
    left = [step]

    def hook(event: str, arguments):
        if event in STEPS:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)


def full(source: Path, out: Path):
    """Save on a full disk; print the message and the remaining files as JSON."""
    loaded = load_bundle(source, merge=False)
    try:
        save_bundle(out / 'runs' / 'policy', loaded.network, loaded.spec)
        message = None
    except UserError as error:
        message = str(error)
    print(
        json.dumps(
            {
                'message': message,
                'left': [
                    str(path) for path in out.rglob('*') if path.is_file() or 'policy' in path.name
                ],
            }
        )
    )


if __name__ == '__main__':
    {'kill': kill, 'full': full}[sys.argv[1]](*map(Path, sys.argv[2:]))
