"""What has to be well before a robot is armed: each check a line, green or red with the remedy."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.safety.status import STATUS_MAX_AGE_S
from mobile_vla_ros.types import Check

TWIST, TWIST_STAMPED = 'geometry_msgs/msg/Twist', 'geometry_msgs/msg/TwistStamped'
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
)
# Of the way to the wheels: they keep nobody from a dry run, in which no wheel turns.
WHEELS = ('cmd_vel_rivals', 'cmd_vel_listeners', 'cmd_vel_type', 'linear_y', 'arm_at_start')

NO_NAME_YET = '_NODE_NAME_UNKNOWN_'  # as rmw has it
# They listen to commands and move nothing.
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
# The arena, and what this package measures with; whole names.
SIMULATED = ('sim', 'drill_watch', 'bench_ear')


class Endpoint(NamedTuple):
    """
    One publisher or subscription, as the graph tells of it.

    :param type: as in ``TYPES``.
    :param gid: the middleware's own number of it.
    """

    node: str
    namespace: str
    type: str
    gid: tuple[int, ...] = ()

    @property
    def full_name(self) -> str:
        """Of the node, with its namespace; in words while the middleware does not know it yet."""
        if self.node == NO_NAME_YET:
            return 'a node whose name has not come yet'
        return f'{self.namespace.rstrip("/")}/{self.node}'


def rivals(topic: str, publishers: Sequence[Endpoint], own: str, publishes: bool) -> Check:
    """
    Check that nobody else publishes commands: the base would follow both in turn.

    :param publishers: all of the topic.
    :param own: full name of the guard; a second node of that name is a rival.
    :param publishes: whether the guard is one of them.
    """
    others = [one.full_name for one in publishers]
    if publishes and own in others:
        others.remove(own)
    others = [f'another {own}' if name == own else name for name in others]
    if not others:
        return Check('cmd_vel_rivals', True, f'nobody but the guard publishes {topic}')
    return Check(
        'cmd_vel_rivals',
        False,
        f'{_names(others)} publishes {topic} too',
        'stop it, or remap it to teleop/cmd_vel, which the guard puts first',
    )


def listeners(topic: str, found: Iterable[Endpoint]) -> Check:
    """Check that somebody who may move wheels listens to the commands."""
    bases = movers(found)
    if bases:
        return Check(
            'cmd_vel_listeners',
            True,
            f'{_names(one.full_name for one in bases)} listens on {topic}',
        )
    return Check(
        'cmd_vel_listeners',
        False,
        f'no base listens on {topic}',
        'start the base, or name its topic with cmd_vel_topic:=…',
    )


def fitting_type(topic: str, found: Iterable[Endpoint], published: str) -> Check:
    """Check that all who may move wheels listen to the type that is published."""
    bases = movers(found)
    shown = _short(published)
    wrong = sorted(
        {f'{one.full_name} wants {_short(one.type)}' for one in bases if one.type != published}
    )
    if not wrong:
        return Check(
            'cmd_vel_type',
            True,
            f'{topic} is {shown}' + (', as who listens wants it' if bases else ''),
        )
    types = {one.type for one in bases}
    remedy = (
        'remap one of them, or put a converter before it'
        if len(types) > 1
        else 'start the guard with cmd_vel_type auto or with that type'
        if types <= {*TYPES.values()}
        else 'that is no velocity command: look at the remappings'
    )
    return Check('cmd_vel_type', False, f'{topic} is {shown}, and {", ".join(wrong)}', remedy)


class Input(NamedTuple):
    """A topic that the guard hears: of which type, who publishes it, and whether one alone may."""

    topic: str
    type: str
    publishers: Sequence[Endpoint]
    alone: bool = False


def inputs(found: Iterable[Input]) -> Check:
    """Check that the guard can hear whoever speaks to it, and that no two policies do."""
    problems = []
    for one in found:
        deaf = [
            f'{who.full_name} publishes {_short(who.type)}'
            for who in one.publishers
            if who.type != one.type
        ]
        if deaf:
            problems.append(
                (
                    f'{one.topic} is heard as {_short(one.type)}, and '
                    f'{" and ".join(sorted(set(deaf)))}',
                    f'have it publish {_short(one.type)}, or remap it',
                )
            )
        elif one.alone and len(one.publishers) > 1:
            problems.append(
                (
                    f'{len(one.publishers)} publish {one.topic}: '
                    f'{_names(who.full_name for who in one.publishers)}',
                    'leave one of them',
                )
            )
    return verdict('inputs', problems, 'whoever speaks to the guard is heard')


def buttons(estop: Input) -> Check:
    """
    Check that one e-stop at most is heard: a message does not tell from whom it is.

    A second button that repeats that it is not pressed would take back what the first one says.
    """
    names = _names(who.full_name for who in estop.publishers)
    if len(estop.publishers) < 2:
        return Check('estop', True, f'{names or "nobody"} publishes {estop.topic}')
    return Check(
        'estop',
        False,
        f'{len(estop.publishers)} publish {estop.topic}, and the last message counts: {names}',
        'join them before the topic, so that one says whether any is pressed',
    )


def alone_with_the_arena(topic: str, found: Iterable[Endpoint]) -> Check:
    """Check that a guard which arms by itself moves nothing but the arena."""
    others = [one.full_name for one in movers(found) if one.node not in SIMULATED]
    if not others:
        return Check('arm_at_start', True, f'nobody but the arena moves by {topic}')
    return Check(
        'arm_at_start',
        False,
        f'{_names(others)} listens on {topic} beside the arena, where the guard arms by itself',
        'give the arena a ROS_DOMAIN_ID or a namespace of its own, or start the guard '
        'without sim:=true (arm_at_start)',
    )


def wanted_type(found: Iterable[Endpoint]) -> str:
    """Return the type to publish, by who listens: stamped where only that is listened to."""
    types = {one.type for one in movers(found)}
    return TWIST_STAMPED if TWIST_STAMPED in types and TWIST not in types else TWIST


def movers(found: Iterable[Endpoint]) -> list[Endpoint]:
    """Return those who may move wheels by what they hear."""
    return [one for one in found if not one.node.startswith(WATCHERS)]


def inference(age_s: float | None, fault: str, told: Collection[str]) -> Check:
    """
    Check that the policy's node is alive and well, and tells all that it has to look at.

    :param age_s: of the newest word on its health; None when none was heard.
    :param fault: what it reports, '' when nothing.
    :param told: names of the checks of its own that came with that word.
    """
    if age_s is None:
        return _unknown(
            'inference says nothing of itself',
            INFERENCE_CHECKS,
            'start inference, and see that it is active; for a policy that is not ours, {}',
        )
    if age_s > STATUS_MAX_AGE_S:
        return _unknown(
            f'inference has been silent for {age_s:.1f} s',
            INFERENCE_CHECKS,
            'see its log, and start it again',
        )
    if fault:
        return Check('inference', False, f'inference reports a fault: {fault}', 'mend it')
    untold = [name for name in INFERENCE_CHECKS if name not in told]
    if untold:
        return _unknown('inference is alive', untold, '{}')
    return Check('inference', True, 'inference is alive')


def _unknown(sentence: str, names: Sequence[str], remedy: str) -> Check:
    """Return the red line of an inference that does not tell these checks."""
    return Check(
        'inference',
        False,
        f'{sentence}; not known: {", ".join(names)}',
        remedy.format('look at these yourself and name inference in override'),
    )


def check_override(names: Iterable[str]) -> frozenset[str]:
    """
    Return the names of checks that do not keep from arming; empty ones are left out.

    :raises UserError: for a name that no check has.
    """
    known = (*GUARD_CHECKS, *INFERENCE_CHECKS)
    names = frozenset(name.strip() for name in names) - {''}
    for name in sorted(names - set(known)):
        raise UserError(
            'override names a check that there is not',
            got=repr(name),
            expected=', '.join(known),
            remedy=did_you_mean(name, known),
        )
    return names


def red(checks: Iterable[Check], override: Collection[str]) -> list[Check]:
    """Return the checks that keep from arming."""
    return [check for check in checks if not check.ok and check.name not in override]


def refusal(checks: Iterable[Check], override: Collection[str]) -> str:
    """Return why these checks keep from arming, a line each, '' when they do not."""
    lines = [check.line for check in red(checks, override)]
    if not lines:
        return ''
    return '\n'.join(
        ['Not armed: mend what is red, or name it in the parameter override.', *lines]
    )


def report(checks: Iterable[Check]) -> str:
    """Return the checks as text, a line each."""
    return '\n'.join(check.line for check in checks)


def verdict(name: str, problems: Sequence[tuple[str, str]], well: str) -> Check:
    """Return a check of several problems, each a sentence and its remedy; `well` without any."""
    if not problems:
        return Check(name, True, well)
    return Check(name, False, *('; '.join(words) for words in zip(*problems, strict=True)))


def _names(names: Iterable[str]) -> str:
    return ' and '.join(sorted(set(names)))


def _short(kind: str) -> str:
    return kind.rsplit('/', 1)[-1]
