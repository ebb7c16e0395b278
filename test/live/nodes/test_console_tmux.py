"""The whole recording stack from one terminal: real keys, an episode on disk."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import time

import pytest

from mobile_vla_ros.bringup.processes import Processes, command_line
from mobile_vla_ros.bringup.share import share_folder
from mobile_vla_ros.bringup.stacks import RECORD
from mobile_vla_ros.episode.storage.reader import Episode
from ros_helpers import wait_until

INSTRUCTION = 'go to the red box'
REPEAT_S = 0.03
COLUMNS, LINES = 80, 24

pytestmark = pytest.mark.skipif(shutil.which('tmux') is None, reason='tmux is not installed')


class Pane:
    """A tmux session with one pane on its own server."""

    def __init__(self, script: str, cwd):
        self.name = f'mobile_vla_{os.getpid()}'
        self._tmux(
            '-f',
            '/dev/null',
            'new-session',
            '-d',
            '-s',
            'console',
            '-x',
            str(COLUMNS),
            '-y',
            str(LINES),
            '-c',
            str(cwd),
            script,
        )

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ['tmux', '-L', self.name, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout

    def keys(self, *keys: str):
        """Press keys by tmux's names (``C-c``, ``Enter``)."""
        self._tmux('send-keys', '-t', 'console', *keys)

    @property
    def screen(self) -> str:
        """The text on the screen."""
        return self._tmux('capture-pane', '-p', '-t', 'console')

    def wait_for(self, pattern: str, timeout_s: float = 30.0) -> str:
        """Wait until the screen matches a regular expression; return the screen."""

        def look():
            screen = self.screen
            return screen if re.search(pattern, screen) else None

        return wait_until(look, timeout_s, repr(pattern), lambda: self.screen)

    def press_until(self, key: str, pattern: str, timeout_s: float = 30.0) -> str:
        """Press a key repeatedly until the screen matches a pattern."""
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.screen):
            assert time.monotonic() < deadline, self.screen
            self.keys(key)
            with contextlib.suppress(AssertionError):
                self.wait_for(pattern, 4.0)  # a start may wait 3 s for the camera
        return self.screen

    def close(self):
        """Stop the server and its processes."""
        subprocess.run(['tmux', '-L', self.name, 'kill-server'], capture_output=True)


def episodes_shown(screen: str) -> int:
    """Return how many episodes of the instruction the screen shows."""
    found = re.search(rf'"{INSTRUCTION}": (\d+) episodes?', screen)
    return int(found[1]) if found else 0


@pytest.fixture
def pane(ros_domain, tmp_path, monkeypatch):
    """The arena, the guard and the recorder as processes, the console in a terminal."""
    specs = {
        spec.name: spec for spec in RECORD.nodes(sim=True, data_dir=str(tmp_path / 'episodes'))
    }
    teleop = specs.pop('teleop')
    monkeypatch.setenv('PYTHONPATH', str(share_folder()), prepend=os.pathsep)
    script = (
        f'stty -g > before; {shlex.join(command_line(teleop))}; '
        'echo "left with status $?"; stty -g > after; touch ended; exec cat'
    )
    with Processes(tmp_path / 'log') as processes:
        processes.start(specs.values())
        one = Pane(f'bash -c {shlex.quote(script)}', tmp_path)
        one.processes = processes
        try:
            yield one
        finally:
            one.close()


def test_an_episode_is_driven_and_stored_from_one_terminal(pane, tmp_path):
    """I, N, hold W, 1, Ctrl-C: REC is shown, the robot moves, the episode is whole and counted."""
    folder = tmp_path / 'episodes'
    pane.wait_for(
        r'idle, camera [1-9][\d.]*( of [\d.]+)? Hz.*\n"', 60
    )  # the arena publishes its own instruction
    pane.keys('i')
    pane.wait_for(r'instruction \(Enter')
    pane.keys('-l', INSTRUCTION)
    pane.keys('Enter')
    pane.wait_for(rf'(?m)^"{INSTRUCTION}"')
    screen = pane.press_until('n', r'REC 0:\d\d, \d+ frames')
    assert len(list(folder.glob('*.part'))) == 1
    state = screen[screen.index('REC') :].rstrip('\n').split('\n')
    assert all(0 < len(line) < COLUMNS for line in state), screen
    began = time.monotonic()
    while time.monotonic() - began < 2.0:
        pane.keys('w')
        time.sleep(REPEAT_S)
    pane.wait_for(r'guard teleop')
    screen = pane.press_until('1', r'last episode (good|poor|bad)')
    (path,) = folder.glob('*.h5')
    with Episode.open(path) as episode:
        assert episode.instruction == INSTRUCTION
        assert episode.outcome == 'success'
        assert (episode.commands.twist[:, 0] > 0).sum() > 10
    assert not list(folder.glob('*.part'))
    wait_until(
        lambda: episodes_shown(pane.screen) == 1, what='the count', detail=lambda: pane.screen
    )
    # Lines of other processes stay, and the state moves below them.
    tty = pane._tmux('display-message', '-p', '-t', 'console', '#{pane_tty}').strip()
    with open(tty, 'w') as screen:
        screen.write('[recorder-2] a line of another node\n')
    pane.wait_for(r'(?m)^\[recorder-2\] a line of another node$(\n.*)*last episode')
    pane.keys('C-c')
    pane.wait_for('left with status 0')
    wait_until((tmp_path / 'ended').exists, 10)
    assert (tmp_path / 'after').read_text() == (tmp_path / 'before').read_text()
    pane.processes.check()
