"""Parameter files that ROS would merge, ignore or misread without a word."""

import pytest
from rcl_interfaces.srv import ListParameters

from mobile_vla_ros.nodes.shared.params_files import NODE_PARAMETERS, OF_ROS

SECTION = '{section}:\n  ros__parameters:\n    {line}\n'
DEFAULT = SECTION.format(section='/**', line='max_planar_speed_mps: 1.0')


def start(nodes, tmp_path, text: str, **options):
    """Start a guard with a default file and the user's own one on top of it."""
    (tmp_path / 'default.yaml').write_text(DEFAULT)
    own = tmp_path / 'own.yaml'
    own.write_text(text)
    return nodes.start(
        'guard_node',
        params_file=own,
        arguments=['--ros-args', '--params-file', str(tmp_path / 'default.yaml'), '--'],
        **options,
    )


@pytest.mark.parametrize(
    'section,line,words',
    [
        (
            '/**',
            'max_planar_speed_mps: "0.2"',
            'own.yaml, line 3: max_planar_speed_mps is a string, "0.2", and must be a double',
        ),
        ('/**', 'rate_hz: 20', 'line 3'),
        ('/**', 'dry_run: "true"', 'line 3'),
        ('/**', 'override: linear_y', 'line 3'),
        (
            '/**',
            'max_planar_sped_mps: 0.2',
            "line 3: max_planar_sped_mps is unknown; did you mean 'max_planar_speed_mps'?",
        ),
        ('guard', 'max_linear_mps: 0.2', 'line 3: max_linear_mps is unknown'),
        (
            '/**/teleop',
            'max_planar_speed_mps: 0.2',
            'line 3: max_planar_speed_mps is not a parameter of teleop',
        ),
        (
            '/robot1/guard',
            'max_planar_speed_mps: 0.2',
            'line 3: the section /robot1/guard does not match the node /guard',
        ),
        (
            '/**',
            'max_planar_speed_mps: 0.2\n    max_planar_speed_mps: 0.9',
            'line 4: max_planar_speed_mps is given twice',
        ),
    ],
)
def test_what_would_be_ignored_is_refused_with_file_and_line(
    nodes, tmp_path, section, line, words
):
    """Status 2 and a sentence, also where the file lies on top of one that is right."""
    process = start(nodes, tmp_path, SECTION.format(section=section, line=line))
    assert process.wait() == 2, process.output
    assert words in process.output
    assert 'Traceback' not in process.output


@pytest.mark.parametrize(
    'section,line',
    [
        ('/**', 'max_planar_speed_mps: 2e-1'),
        ('/robot1/guard:\n  ros__parameters:\n    dry_run: true\n/guard', 'dry_run: false'),
        ('/**', 'throttle: 0.5'),  # the console's, in a file for all nodes
        ('/**', 'use_sim_time: false'),
        ('/**', "override: ['']"),
        ('/**', 'override: []'),  # for ROS, a parameter without a value
        ('guard', 'max_velocity: [0.5, 0.5, 1.0]'),
        ('/*', 'frame_id: "7"'),
        ('planner_server', 'anything: 1'),
        ('/**/joy_node', 'autorepeat_rate: 20.0'),
    ],
)
def test_what_ros_understands_is_left_to_it(nodes, tmp_path, section, line):
    """Values of the right type, and sections of other nodes."""
    process = start(nodes, tmp_path, SECTION.format(section=section, line=line))
    process.wait_for_output('worst-case stopping distance')
    assert process.running


def test_every_node_declares_what_is_known_of_it(nodes, client, tmp_path):
    """The table of other nodes' parameters is true."""
    params = {
        'recorder': {'data_dir': str(tmp_path)},
        'shadow': {'data_dir': str(tmp_path)},
        'teleop': {'terminal_required': False},
        'inference': {'policy': 'builtin:noop'},
    }
    for name, known in NODE_PARAMETERS.items():
        if name == 'joy_node':
            continue
        process = nodes.start(f'{name}_node', params=params.get(name, {}))
        answer = client.call(
            f'{name}/list_parameters', ListParameters, ListParameters.Request(), 30.0
        )
        declared = {
            one
            for one in answer.result.names
            if one not in OF_ROS and not one.startswith('qos_overrides.')
        }
        assert declared == known, name
        process.stop()
