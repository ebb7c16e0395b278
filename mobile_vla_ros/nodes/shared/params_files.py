"""
Checks the parameter files of a node before it runs.

ROS merges several files without a word about a value whose type differs from an earlier file's:
the earlier value stays. It ignores keys that no node declares, and sections that match no node.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobile_vla_ros.errors import UserError, did_you_mean

ROS_PARAMETERS = 'ros__parameters'
# What the nodes that people configure declare, beside ROS's own; joy_node is another package's.
NODE_PARAMETERS: Mapping[str, frozenset[str]] = {
    name: frozenset(names.split())
    for name, names in {
        'guard': 'after_takeover arm_at_start base_deceleration_mps2 cmd_vel_type dry_run '
        'estop_timeout_s expect_policy frame_id max_acceleration max_planar_speed_mps '
        'max_velocity observation_max_age_s override proposal_timeout_s rate_hz '
        'stamp_tolerance_s stop_distance_m takeover_hold_s teleop_timeout_s zero_while_disarmed',
        'inference': 'autostart backbone blank camera_latency_s camera_time compile cuda_graph '
        'device encoding image_transport instruction max_velocity next_policy '
        'observation_max_age_s offline playback policy precision rate_hz receding_steps '
        'stamp_tolerance_s torch_threads',
        'recorder': 'base_command_timeout_s camera_latency_s camera_time camera_wait_s data_dir '
        'disk_floor_mb encoding expected_rate_hz extra_cameras extra_topics flush_period_s '
        'follow_guard image_format image_transport instruction jpeg_quality operator '
        'queue_frames queue_mb ring_mb ring_s robot',
        'shadow': 'base_command_timeout_s buffer_mb camera_latency_s camera_time data_dir '
        'encoding image_format image_transport instruction jpeg_quality operator robot window_s',
        'teleop': 'joy_axes joy_deadzone joy_discard_button joy_enable_button '
        'joy_failure_button joy_resume_button joy_scale joy_start_button joy_stop_button '
        'joy_success_button max_angular_radps max_linear_mps terminal_required throttle',
        'sim': 'base base_speed_mps camera_rate_hz command_timeout_s height jpeg_quality '
        'next_scene_after_s paused publish_clock real_time_factor stamped suite trial '
        'trial_timeout_s width',
        'joy_node': 'autorepeat_rate coalesce_interval_ms deadzone device_id device_name '
        'sticky_buttons',
    }.items()
}
OF_ANY_NODE = frozenset().union(*NODE_PARAMETERS.values())
OF_ROS = {'use_sim_time', 'start_type_description_service'}
OF_ROS_PREFIX = 'qos_overrides.'
EMPTY_LIST = 'list'
SCALARS = (
    ('bool', re.compile(r'true|false|yes|no|on|off|y|n', re.IGNORECASE)),
    ('integer', re.compile(r'[-+]?(0x[0-9a-fA-F]+|[0-9]+)')),
    (
        'double',
        re.compile(
            r'[-+]?(\.inf|\.nan|inf|nan|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?)',
            re.IGNORECASE,
        ),
    ),
)
TYPES = {
    Parameter.Type.BOOL: 'bool',
    Parameter.Type.INTEGER: 'integer',
    Parameter.Type.DOUBLE: 'double',
    Parameter.Type.STRING: 'string',
    Parameter.Type.BOOL_ARRAY: 'list of bool',
    Parameter.Type.INTEGER_ARRAY: 'list of integer',
    Parameter.Type.DOUBLE_ARRAY: 'list of double',
    Parameter.Type.STRING_ARRAY: 'list of string',
}


class Entry(NamedTuple):
    """
    One value of a parameter file.

    :param section: of the file, with a leading slash: ``/**`` or the name of a node.
    :param kind: as in ``TYPES``, or ``list of …`` of several types.
    :param text: the value as written.
    :param line: from 1.
    """

    section: str
    name: str
    kind: str
    text: str
    line: int


def check_params_files(node: Node, arguments: Sequence[str]) -> None:
    """
    Check every ``--params-file`` of a node's command line against what it declares.

    :raises UserError: naming each value of a wrong type, each unknown key, and each section that
        was meant for this node and does not match it, with file and line.
    """
    problems = [problem for path in _files(arguments) for problem in _problems(node, path)]
    if problems:
        raise UserError(f'{node.get_name()} does not start: ' + '; '.join(problems))


def line_of(node: Node, name: str, arguments: Sequence[str]) -> str:
    """Return the file and line of the last value for a parameter of a node, '' without one."""
    found = [
        f'{path}, line {entry.line}'
        for path in _files(arguments)
        for entry in read(path)
        if entry.name == name and _matches(entry.section, node.get_fully_qualified_name())
    ]
    return found[-1] if found else ''


def _files(arguments: Sequence[str]) -> list[Path]:
    return [Path(path) for option, path in pairwise(arguments) if option == '--params-file']


def read(path: Path) -> list[Entry]:
    """Return the values of a parameter file; () of a file that ROS itself refuses."""
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    return list(_sections(root, ''))


def _sections(node: yaml.Node | None, prefix: str) -> Iterator[Entry]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value == ROS_PARAMETERS:
            yield from _entries(value, prefix or '/', '')
        else:
            yield from _sections(value, f'{prefix}/{str(key.value).strip("/")}')


def _entries(node: yaml.Node, section: str, prefix: str) -> Iterator[Entry]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f'{prefix}{key.value}'
        if isinstance(value, yaml.MappingNode):
            yield from _entries(value, section, f'{name}.')
        else:
            yield Entry(section, name, _kind(value), _text(value), key.start_mark.line + 1)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        kinds = {_kind(one) for one in node.value}
        return f'list of {" and ".join(sorted(kinds))}' if kinds else EMPTY_LIST
    if _quote(node):
        return 'string'
    return next((kind for kind, form in SCALARS if form.fullmatch(node.value)), 'string')


def _text(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return f'[{", ".join(map(_text, node.value))}]'
    return f'{_quote(node)}{node.value}{_quote(node)}'


def _quote(node: yaml.Node) -> str:
    """Return the character that quotes a scalar, '' for a plain one."""
    return (node.style or '') if isinstance(node, yaml.ScalarNode) else ''


def _problems(node: Node, path: Path) -> Iterator[str]:
    full_name = node.get_fully_qualified_name()
    names = node.list_parameters([], 0).names
    # Of an empty list, ROS sets nothing.
    unset = Parameter.Type.NOT_SET
    given = {name: node.get_parameter_or(name, Parameter(name, unset)) for name in names}
    known = {name: TYPES.get(one.type_) for name, one in given.items()}
    entries, own = read(path), node.get_name()
    named = {entry.section for entry in entries if entry.section.rsplit('/', 1)[-1] == own}
    # A file for several robots has a section for each.
    if any(_matches(section, full_name) for section in named):
        named = set()
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        where = f'{path}, line {entry.line}: '
        if (entry.section, entry.name) in seen:
            yield f'{where}{entry.name} is given twice'
        seen.add((entry.section, entry.name))
        if _matches(entry.section, full_name):
            yield from _of_this_node(entry, known, where)
        elif entry.section in named:
            yield (
                f'{where}the section {entry.section} does not match the node {full_name}; '
                f'expected {full_name}, /**/{node.get_name()} or /**'
            )
        else:
            yield from _of_another_node(entry, where)


def _of_this_node(entry: Entry, known: Mapping[str, str | None], where: str) -> Iterator[str]:
    if entry.name in known:
        expected = known[entry.name]
        if expected is not None and entry.kind not in (expected, EMPTY_LIST):
            yield (
                f'{where}{entry.name} is a {entry.kind}, {entry.text}, and must be a {expected}'
            )
        return
    of_others = '*' in entry.section and entry.name in OF_ANY_NODE
    if not (of_others or _of_ros(entry.name)):
        near = did_you_mean(entry.name, known)
        yield f'{where}{entry.name} is unknown' + (f'; {near}' if near else '')


def _of_another_node(entry: Entry, where: str) -> Iterator[str]:
    name = entry.section.rsplit('/', 1)[-1]
    if name not in NODE_PARAMETERS or _of_ros(entry.name):
        return
    if entry.name not in NODE_PARAMETERS[name]:
        near = did_you_mean(entry.name, NODE_PARAMETERS[name])
        yield f'{where}{entry.name} is not a parameter of {name}' + (f'; {near}' if near else '')


def _of_ros(name: str) -> bool:
    return name in OF_ROS or name.startswith(OF_ROS_PREFIX)


def _matches(section: str, full_name: str) -> bool:
    pattern = re.escape(section).replace(r'/\*\*', '(/[^/]+)*').replace(r'\*', '[^/]+')
    return re.fullmatch(pattern, full_name) is not None
