"""The three sets of nodes that this package starts: record, drive and sim."""

from collections.abc import Mapping
from dataclasses import replace

from mobile_vla_ros.bringup.share import default_params, executable_of
from mobile_vla_ros.bringup.spec import Argument, Bringup, NodeSpec
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.safety.limits import Limits

CAMERA = 'camera/image_raw'
# Keeps a policy that shadows a person away from the guard.
SHADOWED = {'policy/cmd_vel': 'shadow/cmd_vel', 'policy/health': 'shadow/health'}
# Drives in the arena by default; it comes with the package.
ARENA_POLICY = 'builtin:demo'
GUARD_RATE_HZ, GUARD_RATE_MAX_HZ = 20.0, 100.0

NAMESPACE = Argument('namespace', '', 'namespace of every node and topic')
PARAMS_FILE = Argument('params_file', '', 'YAML file with your own parameters under the key /**')
USE_SIM_TIME = Argument(
    'use_sim_time',
    '',
    'use the time on /clock (empty: as in the parameter file; '
    'false with the arena, which publishes it)',
    bool,
)
TOPICS = (
    Argument(
        'image_topic',
        CAMERA,
        'camera topic; one that ends in /compressed carries compressed images',
    ),
    Argument(
        'image_transport',
        '',
        'raw or compressed (empty: as in the parameter file)',
        choices=('raw', 'compressed'),
    ),
    Argument('cmd_vel_topic', 'cmd_vel', 'topic that the base subscribes to'),
    Argument(
        'stamped', '', 'TwistStamped instead of Twist on cmd_vel (empty: as subscribed to)', bool
    ),
)
SUITE = Argument('suite', '', 'suite of scenes in the arena (empty: as in the parameter file)')
HELD_OUT = replace(SUITE, default='unseen_layouts')  # layouts without training data
ARENA = (
    Argument('trial', '', 'first scene of the suite (empty: as in the parameter file)', int),
    Argument(
        'real_time_factor',
        '1.0',
        "speed of the arena's time; unless 1.0, it publishes /clock, which all nodes follow",
        float,
    ),
)
OVERRIDE = Argument(
    'override',
    '',
    'comma-separated names of preflight checks that may be red when the guard is armed',
)
SIM_TOO = Argument('sim', 'false', 'start the arena as the robot; the guard arms itself', bool)
JOY = Argument(
    'joy',
    'false',
    'also start joy_node, for a joystick on this machine; the console then needs no terminal',
    bool,
)
EPISODES = (
    Argument('data_dir', '', 'folder of the episodes (empty: as in the parameter file)'),
    Argument('operator', '', 'who drives, stored in the episode'),
    Argument('robot', '', 'which robot, stored in the episode'),
)


def _given(values: Mapping, *names: str) -> dict:
    """Return the arguments that are set, as parameters of the same names."""
    return {name: values[name] for name in names if values.get(name) is not None}


def _sim_time(values: Mapping) -> bool | None:
    """
    Return whether the nodes follow /clock, None where the parameter files decide.

    The arena publishes it only if all nodes follow it, so with the arena a file alone cannot
    request it; at another speed than 1.0 they always do.
    """
    if not values.get('sim', True):
        return values['use_sim_time']
    return bool(values['use_sim_time']) or (values['real_time_factor'] or 1.0) != 1.0


def _node(
    values: Mapping,
    name: str,
    parameters: dict,
    *,
    params: str,
    topics: dict[str, str] | None = None,
    required: bool = False,
) -> NodeSpec:
    """Return a node with the settings that all nodes of a set share."""
    own, sim_time = values.get('params_file'), _sim_time(values)
    return NodeSpec(
        name=name,
        executable=f'{name}_node',
        parameters={**({} if sim_time is None else {'use_sim_time': sim_time}), **parameters},
        remappings={
            source: target for source, target in (topics or {}).items() if source != target
        },
        params_files=(*default_params(params), *((own,) if own else ())),
        namespace=(values.get('namespace') or '').strip('/'),
        required=required,
    )


def _camera(values: Mapping) -> tuple[dict, dict]:
    """Return the parameters and remappings of a node that subscribes to the camera."""
    topic = values.get('image_topic') or CAMERA
    parameters = _given(values, 'image_transport')
    if topic.endswith('/compressed'):
        if parameters.get('image_transport') == 'raw':
            raise UserError(
                'image_topic and image_transport contradict each other',
                got=f'{topic} as raw',
                expected='a topic of sensor_msgs/Image for raw',
            )
        topic = topic.removesuffix('/compressed')
        parameters['image_transport'] = 'compressed'
    return parameters, {CAMERA: topic, f'{CAMERA}/compressed': f'{topic}/compressed'}


def _cmd_vel(values: Mapping) -> dict[str, str]:
    return {'cmd_vel': values.get('cmd_vel_topic') or 'cmd_vel'}


def _sim(values: Mapping) -> NodeSpec:
    _, camera = _camera(values)
    parameters = {
        **_given(values, 'suite', 'trial', 'stamped', 'real_time_factor', 'next_scene_after_s'),
        'publish_clock': _sim_time(values),
        'use_sim_time': False,
    }  # it publishes that time
    sim = _node(
        values,
        'sim',
        parameters,
        params='sim.yaml',
        topics={**camera, **_cmd_vel(values)},
        required=True,
    )
    return replace(sim, sends_images=True)


def _guard(values: Mapping) -> NodeSpec:
    parameters = _given(values, 'dry_run')
    if values['stamped'] is not None:
        parameters['cmd_vel_type'] = 'twist_stamped' if values['stamped'] else 'twist'
    if values['override']:
        parameters['override'] = [name.strip() for name in values['override'].split(',')]
    factor = values['real_time_factor'] or 1.0
    if values['sim']:
        parameters['arm_at_start'] = True
        if factor != 1.0:  # the guard ticks in real time, the arena moves in its own
            parameters['rate_hz'] = min(
                max(GUARD_RATE_HZ * factor, GUARD_RATE_HZ / 2), GUARD_RATE_MAX_HZ
            )
            parameters['max_acceleration'] = [a * factor for a in Limits().max_acceleration]
            if factor < 1.0:  # proposals come by the arena's time
                parameters['proposal_timeout_s'] = GuardConfig().proposal_timeout_s / factor
    return _node(
        values, 'guard', parameters, params='guard.yaml', topics=_cmd_vel(values), required=True
    )


def _proposed(values: Mapping) -> dict[str, str]:
    """Return the remappings of a policy's topics: in a shadow drive it must not drive."""
    return SHADOWED if values.get('shadow') else {}


def _recorder(values: Mapping, *, follow_guard: bool = False) -> NodeSpec:
    parameters, camera = _camera(values)
    if follow_guard:
        parameters['follow_guard'] = True
    parameters.update(_given(values, 'data_dir', 'instruction', 'operator', 'robot'))
    return _node(
        values,
        'recorder',
        parameters,
        params='record.yaml',
        topics={**camera, **_cmd_vel(values), **_proposed(values)},
        required=True,
    )


def _console(values: Mapping) -> list[NodeSpec]:
    """Return the console, and the driver of its joystick if requested."""
    if not values['console']:
        if values['joy']:
            raise UserError(
                'the joystick needs the console',
                got='joy without console',
                remedy='add console:=true',
            )
        return []
    if not values['joy']:
        return [_node(values, 'teleop', {}, params='record.yaml')]
    try:
        executable_of('joy', 'joy_node')
    except UserError as error:
        raise UserError(
            f'{error} Without joy:=true, any other publisher of sensor_msgs/Joy on the topic joy '
            'works'
        ) from None
    return [
        replace(_node(values, 'joy', {}, params='record.yaml'), package='joy'),
        _node(values, 'teleop', {'terminal_required': False}, params='record.yaml'),
    ]


def _inference(values: Mapping) -> NodeSpec:
    parameters, camera = _camera(values)
    parameters.update(
        _given(values, 'policy', 'instruction', 'device', 'precision', 'compile', 'playback')
    )
    inference = _node(
        values,
        'inference',
        parameters,
        params='drive.yaml',
        topics={**camera, **_proposed(values)},
    )
    # The guard's file too: inference refuses a policy that drives an axis the base lacks.
    return replace(
        inference, params_files=(*default_params('guard.yaml'), *inference.params_files)
    )


def _shadow(values: Mapping) -> NodeSpec:
    parameters, camera = _camera(values)
    parameters.update(_given(values, 'data_dir', 'instruction', 'operator', 'robot'))
    return _node(
        values,
        'shadow',
        parameters,
        params='record.yaml',
        topics={**camera, **_cmd_vel(values)},
        required=True,
    )


def _record_nodes(values: Mapping) -> list[NodeSpec]:
    if values['console'] and not values['guard']:
        raise UserError(
            'the console drives through the guard',
            got='console without guard',
            remedy='add console:=false if your own stack drives',
        )
    return [
        *([_sim(values)] if values['sim'] else []),
        *([_guard(values)] if values['guard'] else []),
        _recorder(values),
        *_console(values),
    ]


def _drive_nodes(values: Mapping) -> list[NodeSpec]:
    if not values['policy']:
        if not values['sim']:
            raise UserError(
                'no policy is given',
                expected='the folder of a bundle',
                remedy='add policy:=FOLDER; mobile_vla train writes one',
            )
        values = {**values, 'policy': ARENA_POLICY}
    if values['shadow'] and values['dry_run']:
        raise UserError(
            'in a shadow drive somebody must drive',
            got='shadow and dry_run',
            remedy='omit one of them',
        )
    guard = _guard(values)
    if not values['shadow']:
        guard.parameters['expect_policy'] = True
    # In a shadow drive the user's own stack may drive; the guard's zeros must not interfere.
    guarded = values['console'] or not values['shadow']
    return [
        *([_sim(values)] if values['sim'] else []),
        *([guard] if guarded else []),
        _inference(values),
        *([_shadow(values)] if values['shadow'] else []),
        *(
            [_recorder(values, follow_guard=guarded and not values['dry_run'])]
            if values['record']
            else []
        ),
        *_console(values),
    ]


RECORD = Bringup(
    'record',
    'Record episodes while a person drives.',
    (
        Argument('instruction', '', 'instruction of these episodes'),
        *EPISODES,
        *TOPICS,
        Argument('console', 'true', 'start the console: keyboard and joystick', bool),
        JOY,
        Argument(
            'guard',
            'true',
            'drive through the guard; false if your own stack publishes cmd_vel',
            bool,
        ),
        OVERRIDE,
        SIM_TOO,
        SUITE,
        *ARENA,
        PARAMS_FILE,
        NAMESPACE,
        USE_SIM_TIME,
    ),
    _record_nodes,
)

DRIVE = Bringup(
    'drive',
    'Drive with a policy, through the guard.',
    (
        Argument(
            'policy', '', f'folder of the policy bundle (empty, in the arena: {ARENA_POLICY})'
        ),
        Argument('instruction', '', 'what to do, until one is published on the topic instruction'),
        Argument('device', '', 'auto, cpu or cuda (empty: as in the parameter file)'),
        Argument('precision', '', 'fp32, bf16 or fp16 (empty: as in the parameter file)'),
        Argument(
            'playback',
            '',
            'playback of chunks (empty: as in the parameter file)',
            choices=('newest', 'temporal_ensemble', 'receding'),
        ),
        Argument(
            'compile', '', 'torch.compile the network (empty: as in the parameter file)', bool
        ),
        *TOPICS,
        Argument(
            'dry_run',
            '',
            'do everything except publish on cmd_vel (empty: as in the parameter file)',
            bool,
        ),
        Argument(
            'shadow',
            'false',
            'a person drives, by the console or your own stack; the policy only proposes',
            bool,
        ),
        OVERRIDE,
        Argument(
            'record',
            'false',
            'record the drive, one episode for each time that the guard is armed, '
            'with takeovers labelled',
            bool,
        ),
        *EPISODES,
        Argument(
            'console', 'false', 'start the console, to take over by keyboard or joystick', bool
        ),
        JOY,
        SIM_TOO,
        HELD_OUT,
        *ARENA,
        Argument(
            'next_scene_after_s',
            '3.0',
            'in the arena: seconds from the end of a scene to the next one; 0.0: only on request',
            float,
        ),
        PARAMS_FILE,
        NAMESPACE,
        USE_SIM_TIME,
    ),
    _drive_nodes,
)

SIM = Bringup(
    'sim',
    'The arena alone: a robot with a camera that subscribes to cmd_vel.',
    (SUITE, *ARENA, *TOPICS, PARAMS_FILE, NAMESPACE, USE_SIM_TIME),
    lambda values: [_sim(values)],
)
