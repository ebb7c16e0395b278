"""The three sets of nodes that this package starts: record, drive and sim."""

from collections.abc import Mapping
from dataclasses import replace

from mobile_vla_ros.bringup.node_specs import (
    CAMERA,
    console_nodes,
    guard_node,
    inference_node,
    recorder_node,
    shadow_node,
    sim_node,
)
from mobile_vla_ros.bringup.spec import Argument, Bringup, NodeSpec
from mobile_vla_ros.errors import UserError

# Drives in the arena by default; it comes with the package.
ARENA_POLICY = 'builtin:demo'
DIFF_POLICY = 'builtin:demo_diff'

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
CAMERA_TIME = (
    Argument(
        'camera_time',
        '',
        'stamp, or receipt for a camera without a clock (empty: as in the parameter file)',
        choices=('stamp', 'receipt'),
    ),
    Argument(
        'camera_latency_s',
        '',
        'with receipt: seconds from the exposure of an image until the driver publishes it '
        '(empty: as in the parameter file)',
        float,
    ),
)
SUITE = Argument('suite', '', 'suite of scenes in the arena (empty: as in the parameter file)')
HELD_OUT = replace(SUITE, default='unseen_layouts')  # layouts without training data
ARENA = (
    Argument(
        'base',
        '',
        'base in the arena: omni, or diff, which cannot strafe (empty: as in the parameter file)',
        choices=('omni', 'diff'),
    ),
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
RING = Argument(
    'ring_s',
    '',
    'seconds that the black box holds while nothing is recorded; a fault, an e-stop or a takeover '
    'makes them an episode (empty: as in the parameter file)',
    float,
)
EPISODES = (
    Argument('data_dir', '', 'folder of the episodes (empty: as in the parameter file)'),
    Argument('operator', '', 'who drives, stored in the episode'),
    Argument('robot', '', 'which robot, stored in the episode'),
    Argument(
        'base_command_timeout_s',
        '',
        'the base stops this many seconds after a command; 0.0: it holds the last one; '
        '-1.0: unknown (empty: as in the parameter file)',
        float,
    ),
)
EXTRA_TOPICS = (
    Argument(
        'extra_topics',
        '',
        'other topics to record, of any type, separated by commas: '
        '/odom,/scan,/imu,/tf,/tf_static (empty: as in the parameter file)',
    ),
    Argument(
        'extra_cameras',
        '',
        'further cameras to record, by their topics, separated by commas: /wrist/image_raw '
        '(empty: as in the parameter file)',
    ),
)


def _record_nodes(values: Mapping) -> list[NodeSpec]:
    if values['console'] and not values['guard']:
        raise UserError(
            'the console drives through the guard',
            got='console without guard',
            remedy='add console:=false if your own stack drives',
        )
    return [
        *([sim_node(values)] if values['sim'] else []),
        *([guard_node(values)] if values['guard'] else []),
        recorder_node(values),
        *console_nodes(values),
    ]


def _drive_nodes(values: Mapping) -> list[NodeSpec]:
    if not values['policy']:
        if not values['sim']:
            raise UserError(
                'no policy is given',
                expected='the folder of a bundle',
                remedy='add policy:=FOLDER; mobile_vla train writes one',
            )
        values = {**values, 'policy': DIFF_POLICY if values['base'] == 'diff' else ARENA_POLICY}
    if values['shadow'] and values['dry_run']:
        raise UserError(
            'in a shadow drive somebody must drive',
            got='shadow and dry_run',
            remedy='omit one of them',
        )
    guard = guard_node(values)
    if not values['shadow']:
        guard.parameters['expect_policy'] = True
    # In a shadow drive the user's own stack may drive; the guard's zeros must not interfere.
    guarded = values['console'] or not values['shadow']
    follow_guard = guarded and values['record'] and not values['dry_run']
    return [
        *([sim_node(values)] if values['sim'] else []),
        *([guard] if guarded else []),
        inference_node(values),
        *([shadow_node(values)] if values['shadow'] else []),
        *(
            [recorder_node(values, follow_guard=follow_guard)]
            if values['record'] or values['ring_s']
            else []
        ),
        *console_nodes(values),
    ]


RECORD = Bringup(
    'record',
    'Record episodes while a person drives.',
    (
        Argument('instruction', '', 'instruction of these episodes'),
        *EPISODES,
        *EXTRA_TOPICS,
        RING,
        *TOPICS,
        *CAMERA_TIME,
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
            'policy',
            '',
            f'bundle folder or module:Class (empty, in the arena: {ARENA_POLICY}, or '
            f'{DIFF_POLICY} with base:=diff)',
        ),
        Argument('instruction', '', 'what to do, until one is published on the topic instruction'),
        Argument('device', '', 'auto, cpu, cuda or cuda:1 (empty: as in the parameter file)'),
        Argument(
            'backbone', '', "folder of the policy's backbone (empty: found by its hash or hub id)"
        ),
        Argument('precision', '', 'auto, fp32, bf16, fp16 or int8 (empty: the parameter file)'),
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
        *CAMERA_TIME,
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
        *EXTRA_TOPICS,
        RING,
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
    lambda values: [sim_node(values)],
)
