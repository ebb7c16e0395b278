"""The checks before arming: each is a line, green, or red with its remedy."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.safety.status import STATUS_MAX_AGE_S, StopReason
from mobile_vla_ros.types import Check

TWIST, TWIST_STAMPED = 'geometry_msgs/msg/Twist', 'geometry_msgs/msg/TwistStamped'
BOOL = 'std_msgs/msg/Bool'
TYPES = {'twist': TWIST, 'twist_stamped': TWIST_STAMPED}

GUARD_CHECKS = (
    'cmd_vel_rivals',
    'cmd_vel_listeners',
    'cmd_vel_type',
    'linear_y',
    'inputs',
    'estop',
    'arm_at_start',
    'inference',
)
INFERENCE_CHECKS = (
    'camera_rate',
    'camera_size',
    'clock_skew',
    'free_memory',
    'golden_frames',
    'axes',
    'instruction',
)
# Checks of the path to the wheels; a dry run, in which no wheel turns, does not need them.
WHEELS = ('cmd_vel_rivals', 'cmd_vel_listeners', 'cmd_vel_type', 'linear_y', 'arm_at_start')

# What rmw reports until discovery knows a node's name.
NO_NAME_YET = '_NODE_NAME_UNKNOWN_'
# Prefixes of nodes that subscribe to commands and move nothing.
WATCHERS = (
    'recorder',
    'shadow',
    'rosbag2_',
    '_ros2cli',
    'foxglove_bridge',
    'rqt',
    'rviz',
    'plotjuggler',
)
# Names of the arena, and of the nodes that this package measures with.
SIMULATED = ('sim', 'drill_watch', 'bench_ear')


# What identifies an endpoint: the middleware's number of it, or its name.
Key = tuple[int | str, ...]


class Endpoint(NamedTuple):
    """
    One publisher or subscription of the ROS graph.

    :param type: of its messages, as in ``TYPES``.
    :param gid: the middleware's identifier of it.
    """

    node: str
    namespace: str
    type: str
    gid: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        """What identifies it; some middlewares give all endpoints the same gid."""
        return self.gid if any(self.gid) else (self.full_name,)

    @property
    def full_name(self) -> str:
        """Namespace and name of the node; words while discovery does not know them yet."""
        if self.node == NO_NAME_YET:
            return 'a node whose name is not known yet'
        return f'{self.namespace.rstrip("/")}/{self.node}'


def check_rivals(topic: str, publishers: Sequence[Endpoint], own: str, publishes: bool) -> Check:
    """
    Check that no other node publishes commands: the base would follow both in turn.

    :param publishers: all publishers of the topic.
    :param own: full name of the guard; a second node of that name is a rival.
    :param publishes: whether the guard is one of the publishers.
    """
    others = [one.full_name for one in publishers]
    if publishes and own in others:
        others.remove(own)
    others = [f'another {own}' if name == own else name for name in others]
    if not others:
        return Check('cmd_vel_rivals', True, f'only the guard publishes {topic}')
    return Check(
        'cmd_vel_rivals',
        False,
        f'{_names(others)} publishes {topic} too',
        'stop it, or remap it to teleop/cmd_vel, which takes precedence over the policy',
    )


def check_listeners(topic: str, subscribers: Iterable[Endpoint]) -> Check:
    """Check that a possible base subscribes to the commands."""
    bases = possible_bases(subscribers)
    if bases:
        return Check(
            'cmd_vel_listeners',
            True,
            f'{_names(one.full_name for one in bases)} subscribes to {topic}',
        )
    return Check(
        'cmd_vel_listeners',
        False,
        f'no base subscribes to {topic}',
        'start the base, or set its topic with cmd_vel_topic:=…',
    )


def check_cmd_vel_type(topic: str, subscribers: Iterable[Endpoint], published: str) -> Check:
    """Check that every possible base expects the published type."""
    bases = possible_bases(subscribers)
    shown = _short(published)
    mismatches = sorted(
        {f'{one.full_name} expects {_short(one.type)}' for one in bases if one.type != published}
    )
    if not mismatches:
        return Check(
            'cmd_vel_type',
            True,
            f'{topic} is {shown}' + (', as its subscribers expect' if bases else ''),
        )
    types = {one.type for one in bases}
    remedy = (
        'remap one of them, or put a converter in front of it'
        if len(types) > 1
        else 'start the guard with cmd_vel_type auto or with that type'
        if types <= {*TYPES.values()}
        else 'that is not a velocity command: check the remappings'
    )
    return Check('cmd_vel_type', False, f'{topic} is {shown}, and {", ".join(mismatches)}', remedy)


class Input(NamedTuple):
    """
    A topic that the guard subscribes to.

    :param alone: whether only one node may publish it.
    """

    topic: str
    type: str
    publishers: Sequence[Endpoint]
    alone: bool = False


class InputProblem(NamedTuple):
    """
    What is wrong with the publishers of an input.

    :param check: the name of the check that it makes red.
    """

    check: str
    reason: StopReason
    sentence: str
    remedy: str


def input_problems(inputs: Iterable[Input]) -> list[InputProblem]:
    """Return every publisher that the guard cannot receive, and every pair that contradicts."""
    problems = []
    for one in inputs:
        mismatches = {
            f'{publisher.full_name} publishes {_short(publisher.type)}'
            for publisher in one.publishers
            if publisher.type != one.type
        }
        several = one.alone and len(one.publishers) > 1
        names = _names(publisher.full_name for publisher in one.publishers)
        if mismatches:
            problems.append(
                InputProblem(
                    'inputs',
                    StopReason.INPUT_NOT_RECEIVED,
                    f'the guard subscribes to {one.topic} as {_short(one.type)}, and '
                    f'{" and ".join(sorted(mismatches))}',
                    f'publish {_short(one.type)} there, or remap it',
                )
            )
        elif several and one.type == BOOL:
            problems.append(
                InputProblem(
                    'estop',
                    StopReason.COMPETING_INPUT,
                    f'{len(one.publishers)} nodes publish {one.topic}, and the last message wins: '
                    f'{names}',
                    'merge them into one publisher that reports whether any button is pressed',
                )
            )
        elif several:
            problems.append(
                InputProblem(
                    'inputs',
                    StopReason.COMPETING_INPUT,
                    f'{len(one.publishers)} nodes publish {one.topic}: {names}',
                    'stop all but one of them',
                )
            )
    return problems


def check_inputs(inputs: Iterable[Input]) -> Check:
    """Check that every publisher of an input uses its type, and that only one policy proposes."""
    problems = [one[2:] for one in input_problems(inputs) if one.check == 'inputs']
    return combine('inputs', problems, 'the guard receives every publisher of its inputs')


def check_estop(estop: Input) -> Check:
    """
    Check that at most one node publishes the e-stop, since a message does not identify its sender.

    A second button that repeats "not pressed" would cancel the first.
    """
    problems = [
        one[2:] for one in input_problems([estop._replace(alone=True)]) if one.check == 'estop'
    ]
    names = _names(who.full_name for who in estop.publishers)
    return combine('estop', problems, f'{names or "no node"} publishes {estop.topic}')


def check_arm_at_start(topic: str, subscribers: Iterable[Endpoint]) -> Check:
    """Check that a guard which arms by itself can move only the arena."""
    others = [one.full_name for one in possible_bases(subscribers) if one.node not in SIMULATED]
    if not others:
        return Check('arm_at_start', True, f'only the arena subscribes to {topic}')
    return Check(
        'arm_at_start',
        False,
        f'{_names(others)} subscribes to {topic} besides the arena, where the guard arms by '
        'itself',
        'give the arena its own ROS_DOMAIN_ID or namespace, or start the guard without '
        'sim:=true (arm_at_start)',
    )


def select_cmd_vel_type(subscribers: Iterable[Endpoint]) -> str:
    """Return the type to publish: stamped if no possible base expects an unstamped Twist."""
    types = {one.type for one in possible_bases(subscribers)}
    return TWIST_STAMPED if TWIST_STAMPED in types and TWIST not in types else TWIST


def possible_bases(subscribers: Iterable[Endpoint]) -> list[Endpoint]:
    """Return the subscribers that may move wheels: all but the known watchers."""
    return [one for one in subscribers if not one.node.startswith(WATCHERS)]


def check_inference(age_s: float | None, fault: str, reported: Collection[str]) -> Check:
    """
    Check that the policy's node is alive, has no fault, and reports all of its own checks.

    :param age_s: of its newest health report; None before the first.
    :param fault: the sentence of its fault, '' while there is none.
    :param reported: names of its own checks in that report.
    """
    if age_s is None:
        return _unknown(
            'inference has not reported',
            INFERENCE_CHECKS,
            'start inference and make sure that it is active; for a policy node of your own, {}',
        )
    if age_s > STATUS_MAX_AGE_S:
        return _unknown(
            f'inference has been silent for {age_s:.1f} s',
            INFERENCE_CHECKS,
            'read its log and restart it',
        )
    if fault:
        return Check('inference', False, f'inference reports a fault: {fault}', 'clear it')
    missing = [name for name in INFERENCE_CHECKS if name not in reported]
    if missing:
        return _unknown('inference is alive', missing, '{}')
    return Check('inference', True, 'inference is alive')


def _unknown(sentence: str, names: Sequence[str], remedy: str) -> Check:
    """Return the red line for an inference node that does not report these checks."""
    return Check(
        'inference',
        False,
        f'{sentence}; not known: {", ".join(names)}',
        remedy.format('check these yourself and name inference in override'),
    )


def parse_override(names: Iterable[str]) -> frozenset[str]:
    """
    Return the names of checks that may be red when the guard is armed, without empty ones.

    :raises UserError: for an unknown check.
    """
    known = (*GUARD_CHECKS, *INFERENCE_CHECKS)
    names = frozenset(name.strip() for name in names) - {''}
    for name in sorted(names - set(known)):
        raise UserError(
            'override names an unknown check',
            got=repr(name),
            expected=', '.join(known),
            remedy=did_you_mean(name, known),
        )
    return names


def red(checks: Iterable[Check], override: Collection[str]) -> list[Check]:
    """Return the checks that prevent arming."""
    return [check for check in checks if not check.ok and check.name not in override]


def refusal(checks: Iterable[Check], override: Collection[str]) -> str:
    """Return why these checks prevent arming, a line each; '' when none does."""
    lines = [check.line for check in red(checks, override)]
    if not lines:
        return ''
    return '\n'.join(['Not armed: fix what is red, or name it in the parameter override.', *lines])


def report(checks: Iterable[Check]) -> str:
    """Return the checks as text, a line each."""
    return '\n'.join(check.line for check in checks)


def combine(name: str, problems: Sequence[tuple[str, str]], good: str) -> Check:
    """Return a check of several problems, each a sentence and its remedy; `good` without any."""
    if not problems:
        return Check(name, True, good)
    return Check(name, False, *('; '.join(words) for words in zip(*problems, strict=True)))


def _names(names: Iterable[str]) -> str:
    return ' and '.join(sorted(set(names)))


def _short(kind: str) -> str:
    return kind.rsplit('/', 1)[-1]
