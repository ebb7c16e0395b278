"""Fixtures: a private DDS domain for every test with ROS nodes, small policies and episodes."""

import contextlib
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

import hypothesis
import psutil
import pytest

from mobile_vla_ros.bringup.domain import held_domain
from ros_helpers import Client, Nodes

# A background shell may ignore these signals, which the tests' processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A busy machine exceeds any deadline, and many examples show the same.
hypothesis.settings.register_profile('tests', max_examples=50, deadline=None)
hypothesis.settings.load_profile('tests')

# Nothing is remembered in the user's cache but Matplotlib's list of fonts, which is slow to make.
USUAL = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
OWN = tempfile.TemporaryDirectory()
os.environ.setdefault('MPLCONFIGDIR', str(USUAL / 'matplotlib'))
os.environ['XDG_CACHE_HOME'] = OWN.name

# CPU that other processes may use on a quiet machine, in cores.
MAX_BUSY_CORES = 0.5
UNIT, UNIT_NICE = Path(__file__).parent / 'unit', 5


def pytest_configure(config):
    config.addinivalue_line(
        'markers',
        'quiet_machine: measures time to within milliseconds; skipped while others use the CPU '
        '(scripts/test runs these alone, after all others)',
    )
    config.addinivalue_line(
        'markers',
        'exhaustive: every kind or a whole benchmark, where other tests take some of them; '
        'runs only with -m exhaustive',
    )


def pytest_addoption(parser):
    parser.addoption(
        '--share',
        metavar='FOLDER',
        type=Path,
        help='share the files with every other pytest that has this folder',
    )
    parser.addoption('--backwards', action='store_true', help='begin with the last file')


def claims(folder: Path, name: str) -> bool:
    """Whether a name in a folder belongs to this process, which the first to ask for it gets."""
    with contextlib.suppress(FileExistsError):
        (folder / name).symlink_to(f'{os.getpid()}')
    return os.readlink(folder / name) == f'{os.getpid()}'


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Run the tests of the files that no other process has begun (--share)."""
    folder = session.config.option.share
    if folder is None or session.testsfailed or session.config.option.collectonly:
        return None  # as pytest does it
    mine = (item for item in session.items if claims(folder, str(item.path).replace('/', '.')))
    item = next(mine, None)
    while item is not None:
        after = next(mine, None)  # until then its fixtures are kept
        if item.path.is_relative_to(UNIT):  # what still runs of test/live waits for the clock
            os.nice(max(UNIT_NICE - os.nice(0), 0))
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        item = after
    return True


def pytest_collection_modifyitems(config, items):
    """Leave out the exhaustive tests, unless -m names them; begin with the last (--backwards)."""
    if config.option.backwards:
        items.sort(key=lambda item: item.path, reverse=True)
    if 'exhaustive' in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker('exhaustive')]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker('exhaustive')]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip a test that needs a quiet machine on a busy one."""
    if item.get_closest_marker('quiet_machine') is None:
        return
    cores = os.cpu_count() or 1
    busy = psutil.cpu_percent(interval=1.0) / 100 * cores
    load = os.getloadavg()[0]
    if busy > MAX_BUSY_CORES:
        pytest.skip(
            f'needs a quiet machine: others use {busy:.1f} of {cores} cores (load {load:.1f})'
        )


@pytest.fixture
def ros_domain(monkeypatch):
    """Set ROS_DOMAIN_ID to an id that no other test on this machine uses; yield it."""
    with held_domain() as domain:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        yield domain


@pytest.fixture
def nodes(ros_domain):
    """Start node processes with ``nodes.start(…)``; they are killed at the end."""
    started = Nodes()
    yield started
    started.close()


@pytest.fixture
def client(ros_domain):
    """A client on the test's domain: subscribe, publish, stream, call, wait_for."""
    one = Client()
    yield one
    one.close()


@pytest.fixture
def others(ros_domain):
    """Make further clients, each a node of the name given; they leave at the end."""
    made = []

    def make(name):
        made.append(Client(name))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope='session')
def small_backbone(tmp_path_factory) -> str:
    """The path of a transformers folder with a small Kosmos-2 with random weights."""
    from small_backbone import make_small_backbone

    folder = tmp_path_factory.mktemp('backbone') / 'small'
    make_small_backbone(folder)
    return str(folder)


@pytest.fixture(scope='session')
def episode_folder(tmp_path_factory):
    """The folder of six short episodes of the expert with small images."""
    from arena_episodes import write_episodes

    folder = tmp_path_factory.mktemp('episodes')
    write_episodes(folder, 6, size=64, frames=32)
    return folder


@pytest.fixture(scope='session')
def small_run(tmp_path_factory, small_backbone, episode_folder):
    """The folder of a training run of two epochs on the small backbone."""
    from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
    from mobile_vla_ros.training.loop import train

    out = tmp_path_factory.mktemp('run') / 'out'
    train(
        ModelConfig(backbone=small_backbone, lora_r=4, head_hidden=32, head_layers=1),
        DataConfig(data=str(episode_folder)),
        TrainConfig(
            out=str(out), epochs=2, batch_size=4, accumulate=1, device='cpu', learning_rate=1e-3
        ),
        log=lambda _: None,
    )
    return out


@pytest.fixture
def policy_copy(small_run, tmp_path):
    """A copy of the small run's best bundle, to break."""
    return shutil.copytree(small_run / 'best', tmp_path / 'policy')


@pytest.fixture
def fresh_accelerate():
    """Reset accelerate, which keeps its precision as long as the process lives."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope='session')
def turning_episodes(tmp_path_factory):
    """A folder of episodes of a base that turns."""
    from turning import write_turning

    return write_turning(tmp_path_factory.mktemp('turning'))


@pytest.fixture(scope='session')
def turning_policy(turning_episodes, small_backbone, tmp_path_factory):
    """Return the policy with the given axes, trained once on episodes of a base that turns."""
    from turning import train_policy

    return cache(
        lambda axes: train_policy(
            axes, turning_episodes, small_backbone, tmp_path_factory.mktemp('turning') / 'run'
        )
    )


@pytest.fixture(scope='session')
def installed(tmp_path_factory):
    """The install folder of the package, built in a workspace of its own."""
    from colcon_workspace import install

    return install(tmp_path_factory.mktemp('workspace'))
