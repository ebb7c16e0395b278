"""How each node is started, from the values of the launch arguments."""

from collections.abc import Mapping
from dataclasses import replace

from mobile_vla_ros.bringup.share import default_params, executable_of
from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.config import AfterTakeover, GuardConfig
from mobile_vla_ros.safety.limits import Limits

CAMERA = 'camera/image_raw'
# Keeps a policy that shadows a person away from the guard.
SHADOWED = {'policy/cmd_vel': 'shadow/cmd_vel', 'policy/health': 'shadow/health'}
EPISODE_PARAMETERS = ('data_dir', 'instruction', 'operator', 'robot', 'base_command_timeout_s')
GUARD_RATE_HZ, GUARD_RATE_MAX_HZ = 20.0, 100.0


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
    parameters = _given(values, 'image_transport', 'camera_time', 'camera_latency_s')
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


def sim_node(values: Mapping) -> NodeSpec:
    """Return the arena."""
    _, camera = _camera(values)
    parameters = {
        **_given(
            values, 'suite', 'trial', 'base', 'stamped', 'real_time_factor', 'next_scene_after_s'
        ),
        'publish_clock': _sim_time(values),
        'use_sim_time': False,  # it publishes that time
    }
    sim = _node(
        values,
        'sim',
        parameters,
        params='sim.yaml',
        topics={**camera, **_cmd_vel(values)},
        required=True,
    )
    return replace(sim, sends_images=True)


def guard_node(values: Mapping) -> NodeSpec:
    """Return the guard; with the arena it arms itself and follows the arena's speed."""
    parameters = _given(values, 'dry_run') | _of_base(values)
    if values['stamped'] is not None:
        parameters['cmd_vel_type'] = 'twist_stamped' if values['stamped'] else 'twist'
    if values['override']:
        parameters['override'] = values['override'].split(',')
    factor = values['real_time_factor'] or 1.0
    if values['sim']:
        parameters['arm_at_start'] = True
        parameters['after_takeover'] = AfterTakeover.RESUME.value
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


def _of_base(values: Mapping) -> dict[str, list[float]]:
    """Return the limits of the arena's differential base, unless a parameter file is given."""
    if not values['sim'] or values.get('base') != 'diff' or values['params_file']:
        return {}
    ahead, _, turn = Limits().max_velocity
    return {'max_velocity': [ahead, 0.0, turn]}


def _proposed(values: Mapping) -> dict[str, str]:
    """Return the remappings of a policy's topics: in a shadow drive it must not drive."""
    return SHADOWED if values.get('shadow') else {}


def recorder_node(values: Mapping, *, follow_guard: bool = False) -> NodeSpec:
    """Return the recorder; with ``follow_guard`` it records while the guard is armed."""
    parameters, camera = _camera(values)
    if follow_guard:
        parameters['follow_guard'] = True
    parameters.update(_given(values, *EPISODE_PARAMETERS, 'ring_s'))
    for name, listed in _given(values, 'extra_topics', 'extra_cameras').items():
        if listed:
            parameters[name] = listed.split(',')
    return _node(
        values,
        'recorder',
        parameters,
        params='record.yaml',
        topics={**camera, **_cmd_vel(values), **_proposed(values)},
        required=True,
    )


def console_nodes(values: Mapping) -> list[NodeSpec]:
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


def inference_node(values: Mapping) -> NodeSpec:
    """Return the node that runs the policy."""
    parameters, camera = _camera(values)
    parameters |= _of_base(values)
    parameters.update(
        _given(
            values,
            'policy',
            'backbone',
            'instruction',
            'device',
            'precision',
            'compile',
            'playback',
        )
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


def shadow_node(values: Mapping) -> NodeSpec:
    """Return the node that compares the policy with the person who drives."""
    parameters, camera = _camera(values)
    parameters.update(_given(values, *EPISODE_PARAMETERS))
    return _node(
        values,
        'shadow',
        parameters,
        params='record.yaml',
        topics={**camera, **_cmd_vel(values)},
        required=True,
    )
