"""One description of the processes to start, for the launch files and the demo."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.node import Node

from mobile_vla_ros.bringup.processes import ProcessEnded, Processes, command_line, yaml_value
from mobile_vla_ros.bringup.share import config_file, default_params, share_folder
from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.bringup.stacks import DRIVE, RECORD, SIM
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.preflight import parse_override
from ros_helpers import TIMEOUT_S, wait_until

BRINGUPS = (RECORD, DRIVE, SIM)


def by_name(specs) -> dict[str, NodeSpec]:
    return {spec.name: spec for spec in specs}


def test_record_starts_console_guard_and_recorder():
    """The recorder records the guard's output; the arena starts only on request."""
    assert set(by_name(RECORD.nodes())) == {'guard', 'recorder', 'teleop'}
    assert set(by_name(RECORD.nodes(console=False, sim=True))) == {'guard', 'recorder', 'sim'}


def test_the_user_s_own_stack_is_recorded_without_our_guard():
    """The guard's zeros must not mix with the commands of another publisher of cmd_vel."""
    assert set(by_name(RECORD.nodes(console=False, guard=False))) == {'recorder'}
    with pytest.raises(UserError, match='console'):
        RECORD.nodes(guard='false')


def test_drive_starts_guard_and_inference_and_records_on_request():
    """record:=true adds the recorder."""
    assert set(by_name(DRIVE.nodes(policy='p'))) == {'guard', 'inference'}
    assert set(by_name(DRIVE.nodes(policy='p', record='true', sim='true', console='true'))) == {
        'sim',
        'guard',
        'inference',
        'recorder',
        'teleop',
    }


def test_a_dry_run_starts_all_and_keeps_cmd_vel_silent():
    """The guard decides and reports, but publishes no command."""
    specs = by_name(DRIVE.nodes(policy='p', dry_run='true'))
    assert set(specs) == {'guard', 'inference'}
    assert specs['guard'].parameters['dry_run'] is True
    assert (
        by_name(DRIVE.nodes(policy='p', dry_run='false'))['guard'].parameters['dry_run'] is False
    )
    # Without the argument, the user's own parameter file decides, which may select a dry run.
    assert 'dry_run' not in by_name(DRIVE.nodes(policy='p'))['guard'].parameters


def test_the_guard_never_receives_a_shadow_policy():
    """A person drives: no topic of the policy reaches the guard, and the guard expects none."""
    specs = by_name(DRIVE.nodes(policy='p', shadow='true', console='true'))
    assert set(specs) == {'guard', 'inference', 'shadow', 'teleop'}
    assert specs['inference'].remappings == {
        'policy/cmd_vel': 'shadow/cmd_vel',
        'policy/health': 'shadow/health',
    }
    assert 'expect_policy' not in specs['guard'].parameters
    assert by_name(DRIVE.nodes(policy='p'))['guard'].parameters['expect_policy'] is True
    with pytest.raises(UserError, match='somebody must drive'):
        DRIVE.nodes(policy='p', shadow=True, dry_run=True)


def test_a_shadow_leaves_cmd_vel_to_the_user_s_own_stack():
    """Without our console another node drives, and the guard's zeros would mix with it."""
    assert set(by_name(DRIVE.nodes(policy='p', shadow=True))) == {'inference', 'shadow'}


def test_checks_are_overridden_by_name():
    """override:=a,b is a list for the guard; without it no parameter is set."""
    guard = by_name(DRIVE.nodes(policy='p', override='camera_rate, golden_frames'))['guard']
    assert parse_override(guard.parameters['override']) == {'camera_rate', 'golden_frames'}
    assert 'override' not in by_name(DRIVE.nodes(policy='p'))['guard'].parameters


def test_inference_has_the_guard_s_velocity_limits():
    """max_velocity is only in the guard's file; inference checks policies against it."""
    inference = by_name(DRIVE.nodes(policy='p'))['inference']
    assert inference.params_files == (*default_params('guard.yaml'), *default_params('drive.yaml'))


def test_the_guard_arms_itself_only_in_the_arena():
    """On a robot a person arms it: only sim:=true sets arm_at_start."""
    assert 'arm_at_start' not in by_name(DRIVE.nodes(policy='p'))['guard'].parameters
    assert by_name(DRIVE.nodes(policy='p', sim=True))['guard'].parameters['arm_at_start'] is True


def test_a_policy_is_required():
    """Driving a robot without one is refused with a remedy."""
    with pytest.raises(UserError, match='policy:=FOLDER'):
        DRIVE.nodes()


def test_the_shipped_policy_drives_the_arena_by_default():
    """`drive.launch.py sim:=true` needs no other argument; given values win."""
    assert by_name(DRIVE.nodes(sim=True))['inference'].parameters['policy'] == 'builtin:demo'
    assert by_name(DRIVE.nodes(sim=True, policy='p'))['inference'].parameters['policy'] == 'p'


def test_a_differential_base_in_the_arena_has_its_own_policy():
    """`base:=diff` reaches the arena, and chooses the policy unless one is given."""
    nodes = by_name(DRIVE.nodes(sim=True, base='diff'))
    assert nodes['sim'].parameters['base'] == 'diff'
    for name in ('guard', 'inference'):  # a policy that strafes is refused, and a key is no label
        assert nodes[name].parameters['max_velocity'] == [1.0, 0.0, 1.0]
    assert nodes['inference'].parameters['policy'] == 'builtin:demo_diff'
    given = by_name(DRIVE.nodes(sim=True, base='diff', policy='p'))
    assert given['inference'].parameters['policy'] == 'p'
    assert 'base' not in by_name(DRIVE.nodes(sim=True))['sim'].parameters


def plant(tmp_path, monkeypatch, code: str = '') -> None:
    """Install a ROS package ``joy`` whose joy_node is the test's script."""
    (tmp_path / 'share/ament_index/resource_index/packages').mkdir(parents=True)
    (tmp_path / 'share/ament_index/resource_index/packages/joy').touch()
    program = tmp_path / 'lib' / 'joy' / 'joy_node'
    program.parent.mkdir(parents=True)
    program.write_text(f'#!{sys.executable}\n{textwrap.dedent(code)}')
    program.chmod(0o755)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))


@pytest.mark.parametrize('bringup', [RECORD, DRIVE], ids=lambda b: b.name)
def test_joy_starts_the_driver_of_a_joystick(bringup, tmp_path, monkeypatch):
    """joy:=true adds joy_node of the package joy; the console then needs no terminal."""
    plant(tmp_path, monkeypatch)
    given = {'policy': 'p'} if bringup is DRIVE else {}
    specs = by_name(bringup.nodes(console=True, joy='true', namespace='r1', **given))
    assert (specs['joy'].package, specs['joy'].executable) == ('joy', 'joy_node')
    assert specs['joy'].namespace == specs['teleop'].namespace == 'r1'
    assert specs['teleop'].parameters['terminal_required'] is False
    line = command_line(specs['joy'])
    assert line[0] == str(tmp_path / 'lib/joy/joy_node')
    assert '__node:=joy' in line
    plain = by_name(bringup.nodes(console=True, **given))
    assert 'joy' not in plain
    assert 'terminal_required' not in plain['teleop'].parameters


def test_joy_without_its_package_or_the_console_is_refused(monkeypatch):
    """The sentence names the package, or another publisher of joy as the alternative."""
    for path in ('', '/nowhere'):
        monkeypatch.setenv('AMENT_PREFIX_PATH', path)
        with pytest.raises(UserError) as refusal:
            RECORD.nodes(joy=True)
        for word in ("'joy' is not installed", 'apt install ros-$ROS_DISTRO-joy', 'any other'):
            assert word.lower() in str(refusal.value).lower()
    with pytest.raises(UserError, match='console:=true'):
        DRIVE.nodes(policy='p', joy=True)


def test_a_node_of_another_package_is_run_and_watched(tmp_path, monkeypatch):
    """Its own executable with our arguments; its end is reported like that of our nodes."""
    plant(tmp_path, monkeypatch, 'import sys; print(sys.argv[1:]); sys.exit(3)')
    joy = by_name(RECORD.nodes(joy=True))['joy']
    with Processes(tmp_path / 'log') as processes:
        processes.start(joy, finite=True)
        with pytest.raises(ProcessEnded) as ended:
            processes.wait('joy', 20.0)
    assert ended.value.status == 3
    assert '__node:=joy' in ended.value.tail


def test_topics_are_remapped_in_every_node_that_uses_them():
    """One argument remaps the camera or cmd_vel in all nodes, the compressed topic too."""
    specs = by_name(
        DRIVE.nodes(
            policy='p',
            record=True,
            sim=True,
            image_topic='/front/image',
            cmd_vel_topic='base/cmd',
            namespace='/robot_1',
        )
    )
    for name in ('sim', 'inference', 'recorder'):
        assert specs[name].remappings['camera/image_raw'] == '/front/image'
        assert specs[name].remappings['camera/image_raw/compressed'] == '/front/image/compressed'
    for name in ('sim', 'guard', 'recorder'):
        assert specs[name].remappings['cmd_vel'] == 'base/cmd'
    assert {spec.namespace for spec in specs.values()} == {'robot_1'}


def test_a_recorded_drive_starts_its_episodes_itself():
    """The recorder follows the guard; in record.launch.py a person starts episodes."""
    assert by_name(DRIVE.nodes(policy='p', record=True))['recorder'].parameters['follow_guard']
    assert 'follow_guard' not in by_name(RECORD.nodes())['recorder'].parameters


def test_a_black_box_needs_no_recording():
    """With ring_s alone a drive has a recorder, which starts no episode by itself."""
    recorder = by_name(DRIVE.nodes(policy='p', ring_s=30.0))['recorder']
    assert recorder.parameters['ring_s'] == 30.0 and 'follow_guard' not in recorder.parameters
    assert 'recorder' not in by_name(DRIVE.nodes(policy='p'))
    assert by_name(RECORD.nodes(ring_s=10.0))['recorder'].parameters['ring_s'] == 10.0


def test_a_recorded_shadow_drive_has_the_proposals():
    """The recorder subscribes to the shadow's topic."""
    specs = by_name(DRIVE.nodes(policy='p', record=True, shadow=True))
    assert {specs[name].remappings['policy/cmd_vel'] for name in ('inference', 'recorder')} == {
        'shadow/cmd_vel'
    }


def test_a_compressed_topic_selects_the_compressed_transport():
    """image_topic:=…/compressed needs no second argument; raw contradicts it."""
    inference = by_name(DRIVE.nodes(policy='p', image_topic='cam/compressed'))['inference']
    assert inference.parameters['image_transport'] == 'compressed'
    assert inference.remappings['camera/image_raw/compressed'] == 'cam/compressed'
    with pytest.raises(UserError, match='contradict'):
        DRIVE.nodes(policy='p', image_topic='cam/compressed', image_transport='raw')


def test_every_node_times_the_camera_alike():
    """Policy, recorder and shadow compare the times of the same frames."""
    given = {'camera_time': 'receipt', 'camera_latency_s': 0.05}
    specs = DRIVE.nodes(policy='p', shadow=True, record=True, **given)
    with_camera = {'inference', 'recorder', 'shadow'}
    assert {one.name for one in specs if given.items() <= one.parameters.items()} == with_camera
    recorder = by_name(RECORD.nodes(**given))['recorder']
    assert given.items() <= recorder.parameters.items()
    assert not any(given.keys() & one.parameters.keys() for one in DRIVE.nodes(policy='p'))


def test_missing_arguments_are_left_to_the_parameter_files(tmp_path):
    """An empty argument sets no parameter; the user's file comes after ours."""
    own = tmp_path / 'mine.yaml'
    own.write_text('/**:\n  ros__parameters:\n    stamped: true\n')
    guard = by_name(RECORD.nodes(params_file=own))['guard']
    assert 'cmd_vel_type' not in guard.parameters
    assert guard.params_files == (*default_params('guard.yaml'), str(own))
    for given, wanted in (('false', 'twist'), ('true', 'twist_stamped')):
        guard = by_name(RECORD.nodes(stamped=given))['guard']
        assert guard.parameters['cmd_vel_type'] == wanted


def test_an_arena_of_another_speed_publishes_the_clock():
    """At four times real time the arena publishes /clock, and the other nodes use it."""
    specs = by_name(RECORD.nodes(sim=True, real_time_factor=4.0))
    assert specs['sim'].parameters['publish_clock'] is True
    assert specs['sim'].parameters['use_sim_time'] is False
    assert {s.parameters['use_sim_time'] for n, s in specs.items() if n != 'sim'} == {True}
    assert specs['guard'].parameters['rate_hz'] == 80.0
    assert by_name(RECORD.nodes(sim=True))['guard'].parameters['use_sim_time'] is False


@pytest.mark.parametrize('bringup', [RECORD, DRIVE], ids=lambda b: b.name)
def test_use_sim_time_of_a_parameter_file_counts(bringup):
    """A missing launch argument must not override it; a given one wins."""
    given = {'policy': 'p'} if bringup is DRIVE else {}
    assert not any('use_sim_time' in spec.parameters for spec in bringup.nodes(**given))
    for value in (True, False):
        assert {
            spec.parameters['use_sim_time'] for spec in bringup.nodes(use_sim_time=value, **given)
        } == {value}


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'instructoin': 'x'}, ["'instructoin'", "mean 'instruction'"]),
        ({'sim': 'maybe'}, ['sim', 'true or false']),
        ({'trial': 'first'}, ['trial', 'a number']),
        ({'image_transport': 'compresed'}, ["mean 'compressed'"]),
        ({'params_file': '/nowhere.yaml'}, ['/nowhere.yaml', 'does not exist']),
        ({'namespace': 'robot 1'}, ['namespace', 'ROS name']),
    ],
)
def test_invalid_arguments_are_refused_with_a_remedy(values, words):
    """Unknown names, wrong types and missing files give one sentence before anything starts."""
    with pytest.raises(UserError) as refusal:
        RECORD.nodes(**values)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_every_argument_is_described_once():
    """For ros2 launch --show-args."""
    for bringup in BRINGUPS:
        names = [argument.name for argument in bringup.arguments]
        assert len(names) == len(set(names))
        assert all(len(argument.description) > 15 for argument in bringup.arguments)


@pytest.mark.parametrize(
    'value',
    [
        True,
        3,
        -2,
        0.5,
        1.0,
        1e-05,
        -2.5e-07,
        1e20,
        [1.0, 2.0, 1e-06],
        ['a', 'b'],
        'plain',
        'true',
        '1.0',
        'go to the "red" box: now, #1',
        "it's",
        '빨간 상자로 가',
        'a\nb',
        '1e5',
        'inf',
        ['1.0', 'no'],
        [],
        float('inf'),
        'a folder/' * 20,
    ],
)
def test_a_parameter_keeps_its_type_and_text_on_the_command_line(value):
    """The string 'true' stays a string, 1.0 a float, and no character is lost."""
    read = yaml.safe_load(yaml_value(value))
    assert read == value
    assert type(read) is type(value)
    assert '\n' not in yaml_value(value)


def test_ros_reads_a_parameter_with_its_type():
    """With the parser of rcl, which reads more words as numbers than YAML."""
    values = {'f': 1.0, 'tiny': 1e-05, 'i': 1, 'b': True, 'fs': [1.0, 2e20], 'ss': ['no', '1']}
    values |= {f'text{n}': text for n, text in enumerate(('1e5', 'inf', 'yes', 'a: "b", #c', ''))}
    spec = NodeSpec('reads', 'guard_node', parameters={**values, 'path': Path('/a b/c')})
    context = rclpy.Context()
    rclpy.init(args=command_line(spec), context=context)
    try:
        node = Node('reads', context=context, automatically_declare_parameters_from_overrides=True)
        read = {name: node.get_parameter(name).value for name in [*values, 'path']}
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    read = {name: list(one) if hasattr(one, 'typecode') else one for name, one in read.items()}
    assert read == {**values, 'path': '/a b/c'}
    assert [type(read[name]) for name in values] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    'name',
    sorted(
        p.name
        for p in (share_folder() / 'config').glob('*.yaml')
        if 'ros__parameters' in p.read_text()
    ),
)
def test_parameter_files_are_keyed_for_every_node(name):
    """The key /** applies in every namespace."""
    content = yaml.safe_load(config_file(name).read_text())
    assert list(content) == ['/**']
    assert list(content['/**']) == ['ros__parameters']


def test_an_unknown_configuration_file_is_refused_with_the_nearest_name():
    """config_file lists the existing files."""
    with pytest.raises(UserError, match=r"mean 'guard\.yaml'"):
        config_file('gard.yaml')


def spec_of(tmp_path, name: str, code: str, monkeypatch) -> NodeSpec:
    """Return a spec that runs the test's script as a node's module."""
    package = tmp_path / 'planted'
    package.mkdir(exist_ok=True)
    (package / f'{name}.py').write_text(textwrap.dedent(code))
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(NodeSpec, 'module', property(lambda self: f'planted.{self.executable}'))
    return NodeSpec(name=name, executable=name)


def test_the_first_end_is_reported_with_its_log(tmp_path, monkeypatch):
    """The next check reports a node that ended by itself, with its last lines."""
    waits = spec_of(tmp_path, 'waits', 'import time; time.sleep(60)', monkeypatch)
    dies = spec_of(tmp_path, 'dies', 'import sys; print("no policy"); sys.exit(2)', monkeypatch)
    with Processes(tmp_path / 'log') as processes:
        processes.start([waits, dies])

        def died():
            try:
                processes.check()
            except ProcessEnded as ended:
                return ended
            return None

        ended = wait_until(died, what='the death')
        pid = processes['waits'].process.pid
    assert (ended.name, ended.status, ended.tail) == ('dies', 2, 'no policy')
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_waiting_for_a_process_watches_the_others(tmp_path, monkeypatch):
    """Its end with status 0 is success; another process's end is not."""
    short = spec_of(tmp_path, 'short', 'print("done")', monkeypatch)
    waits = spec_of(tmp_path, 'waits', 'import time; time.sleep(60)', monkeypatch)
    dies = spec_of(tmp_path, 'dies', 'raise SystemExit(1)', monkeypatch)
    with Processes(tmp_path / 'log') as processes:
        processes.start(short, finite=True)
        processes.wait('short', 20.0)
        assert processes['short'].tail() == 'done'
        processes.start([waits, dies])
        with pytest.raises(ProcessEnded, match='dies'):
            processes.wait('waits', 20.0)


def test_a_process_that_ignores_ctrl_c_is_killed(tmp_path, monkeypatch):
    """SIGINT, SIGTERM, then SIGKILL; also for a stopped process."""
    patience = ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.3), (signal.SIGKILL, TIMEOUT_S))
    stubborn = spec_of(
        tmp_path,
        'stubborn',
        """
        import signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print('ready')
        time.sleep(60)
        """,
        monkeypatch,
    )
    with Processes(tmp_path / 'log', patience=patience) as processes:
        processes.start(stubborn)
        wait_until(lambda: 'ready' in processes['stubborn'].tail())
        os.kill(processes['stubborn'].process.pid, signal.SIGSTOP)
        assert processes.stop() == {'stubborn': -signal.SIGKILL}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_signals_to_their_parent_stop_the_nodes_in_order(tmp_path, number):
    """Ctrl-C, Ctrl-\\ or a supervisor's, and SIGHUP of a terminal that is gone meanwhile."""
    node = tmp_path / 'node.py'
    node.write_text(
        textwrap.dedent("""
        import signal, sys, time
        def stop(*_):
            print('stopping\\n', end='', flush=True)
            time.sleep(0.3)
            sys.exit(print('stopped\\n', end=''))
        signal.signal(signal.SIGINT, stop)
        print('ready\\n', end='', flush=True)
        time.sleep(60)
        """)
    )
    starter = tmp_path / 'starter.py'
    starter.write_text(
        textwrap.dedent(f"""
        import sys, time
        from mobile_vla_ros.bringup import processes
        from mobile_vla_ros.bringup.spec import NodeSpec
        processes.command_line = lambda _: [sys.executable, {str(node)!r}]
        with processes.Processes({str(tmp_path)!r}) as started:
            started.start(NodeSpec('node', 'guard_node'))
            time.sleep(60)
        """)
    )
    log = tmp_path / 'node.log'
    parent = subprocess.Popen(
        [sys.executable, str(starter)],
        env={**os.environ, 'PYTHONPATH': str(share_folder())},
        # A shell makes what it starts in the background ignore SIGINT and SIGQUIT.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        wait_until(lambda: log.exists() and 'ready' in log.read_text(), what='the node')
        parent.send_signal(number)
        wait_until(lambda: 'stopping' in log.read_text(), what='the stop')
        parent.send_signal(signal.SIGHUP)
        assert parent.wait(TIMEOUT_S) == 128 + signal.SIGHUP
    finally:
        parent.kill()
        parent.wait()
    assert log.read_text().split() == ['ready', 'stopping', 'stopped']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_node_is_started_leaves_no_orphan(tmp_path, number):
    """It comes just after the fork, before the parent knows the process."""
    pid = tmp_path / 'pid'
    starter = tmp_path / 'starter.py'
    starter.write_text(
        textwrap.dedent(f"""
        import os, pathlib, subprocess
        from mobile_vla_ros.bringup import processes
        from mobile_vla_ros.bringup.spec import NodeSpec
        class Popen(subprocess.Popen):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                pathlib.Path({str(pid)!r}).write_text(str(self.pid))
                os.kill(os.getpid(), {int(number)})
        subprocess.Popen = Popen
        processes.command_line = lambda _: ['sleep', '60']
        with processes.Processes({str(tmp_path)!r}) as started:
            started.start(NodeSpec(name, 'guard_node') for name in ('one', 'two'))
        """)
    )
    parent = subprocess.run(
        [sys.executable, str(starter)],
        env={**os.environ, 'PYTHONPATH': str(share_folder())},
        timeout=120,
        stderr=subprocess.PIPE,
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGKILL)
    expected = -signal.SIGINT if number == signal.SIGINT else 128 + number
    assert parent.returncode == expected, parent.stderr
    assert not (tmp_path / 'two.log').exists()


def test_the_command_line_names_the_node_and_its_files():
    """python -m module --ros-args with name, namespace, files first and parameters last."""
    line = command_line(
        NodeSpec('guard', 'guard_node', {'stamped': True}, {'cmd_vel': 'c'}, ('a.yaml',), 'r1')
    )
    assert line[1:] == [
        '-m',
        'mobile_vla_ros.nodes.guard_node',
        '--ros-args',
        '-r',
        '__node:=guard',
        '-r',
        '__ns:=/r1',
        '-r',
        'cmd_vel:=c',
        '--params-file',
        'a.yaml',
        '-p',
        'stamped:=true',
    ]


@pytest.mark.parametrize('bringup', BRINGUPS, ids=lambda b: b.name)
def test_a_launch_file_starts_the_described_nodes(bringup):
    """If ros2 launch is installed: every argument is declared, every node has its values."""
    launch = pytest.importorskip('launch', exc_type=ImportError)
    pytest.importorskip('launch_ros.actions', exc_type=ImportError)
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    path = share_folder() / 'launch' / f'{bringup.name}.launch.py'
    context = launch.LaunchContext()
    description = PythonLaunchDescriptionSource(str(path)).get_launch_description(context)
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert list(declared) == [argument.name for argument in bringup.arguments]
    values = {'policy': 'p'} if bringup is DRIVE else {}
    context.launch_configurations.update(values)
    nodes = []
    for entity in description.entities:
        nodes += entity.execute(context) or []
    specs = bringup.nodes(**values)
    assert [node.node_executable for node in nodes] == [spec.executable for spec in specs]
