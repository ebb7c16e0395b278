"""What has to be well before a robot is armed: each check a line, green or red with the remedy."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.safety.config import HEALTH_FRESH_S
from mobile_vla_ros.types import TWIST_AXES, Check

TWIST, TWIST_STAMPED = 'geometry_msgs/msg/Twist', 'geometry_msgs/msg/TwistStamped'
TYPES = {'twist': TWIST, 'twist_stamped': TWIST_STAMPED}

GUARD_CHECKS = ('cmd_vel_rivals', 'cmd_vel_listeners', 'cmd_vel_type', 'linear_y', 'inputs',
                'inference')
INFERENCE_CHECKS = ('camera_rate', 'camera_size', 'clock_skew', 'free_memory', 'golden_frames',
                    'axes')
# Of the way to the wheels: they keep nobody from a dry run, in which no wheel turns.
WHEELS = ('cmd_vel_rivals', 'cmd_vel_listeners', 'cmd_vel_type', 'linear_y')

NO_NAME_YET = '_NODE_NAME_UNKNOWN_'  # as rmw has it
# They listen to commands and move nothing.
WATCHERS = ('recorder', 'shadow', 'rosbag2_', '_ros2cli', 'foxglove_bridge', 'rqt', 'rviz',
            'plotjuggler')
# Part of the name of a node that drives a base which cannot strafe.
CANNOT_STRAFE = ('diff_drive', 'diffbot', 'ackermann', 'bicycle', 'tricycle', 'turtlebot3')
SMOOTHER = 'velocity_smoother'
# Parameters of nav2's smoother that must each leave room on y, and the sign of that room
# (ros-navigation/navigation2#6292: without it, y becomes zero and nothing is said).
SMOOTHER_SIGNS = {'max_velocity': 1, 'min_velocity': -1, 'max_accel': 1, 'max_decel': -1}


class Endpoint(NamedTuple):
    """One publisher or subscription, as the graph tells of it; the type as in ``TYPES``."""

    node: str
    namespace: str
    type: str

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
    if not others:
        return Check('cmd_vel_rivals', True, f'nobody but the guard publishes {topic}')
    return Check('cmd_vel_rivals', False, f'{_names(others)} publishes {topic} too',
                 'stop it, or remap it to teleop/cmd_vel, which the guard puts first')


def listeners(topic: str, found: Iterable[Endpoint]) -> Check:
    """Check that somebody who may move wheels listens to the commands."""
    bases = movers(found)
    if bases:
        return Check('cmd_vel_listeners', True,
                     f'{_names(one.full_name for one in bases)} listens on {topic}')
    return Check('cmd_vel_listeners', False, f'no base listens on {topic}',
                 'start the base, or name its topic with cmd_vel_topic:=…')


def fitting_type(topic: str, found: Iterable[Endpoint], published: str) -> Check:
    """Check that all who may move wheels listen to the type that is published."""
    bases = movers(found)
    shown = _short(published)
    wrong = sorted({f'{one.full_name} wants {_short(one.type)}' for one in bases
                    if one.type != published})
    if not wrong:
        return Check('cmd_vel_type', True, f'{topic} is {shown}' + (
            ', as who listens wants it' if bases else ''))
    types = {one.type for one in bases}
    remedy = ('remap one of them, or put a converter before it' if len(types) > 1 else
              'start the guard with cmd_vel_type auto or with that type' if types <= {
                  *TYPES.values()} else 'that is no velocity command: look at the remappings')
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
        deaf = [f'{who.full_name} publishes {_short(who.type)}' for who in one.publishers
                if who.type != one.type]
        if deaf:
            problems.append((f'{one.topic} is heard as {_short(one.type)}, and '
                             f'{" and ".join(sorted(set(deaf)))}',
                             f'have it publish {_short(one.type)}, or remap it'))
        elif one.alone and len(one.publishers) > 1:
            problems.append((f'{len(one.publishers)} publish {one.topic}: '
                             f'{_names(who.full_name for who in one.publishers)}',
                             'leave one of them'))
    return _verdict('inputs', problems, 'whoever speaks to the guard is heard')


def wanted_type(found: Iterable[Endpoint]) -> str:
    """Return the type to publish, by who listens: stamped where only that is listened to."""
    types = {one.type for one in movers(found)}
    return TWIST_STAMPED if TWIST_STAMPED in types and TWIST not in types else TWIST


def movers(found: Iterable[Endpoint]) -> list[Endpoint]:
    """Return those who may move wheels by what they hear."""
    return [one for one in found if not one.node.startswith(WATCHERS)]


def smoothers(found: Iterable[Endpoint]) -> list[str]:
    """Return the full names of nav2's smoothers, whose parameters say whether y goes through."""
    return sorted({one.full_name for one in found if SMOOTHER in one.node})


def linear_y(on_the_way: Iterable[Endpoint], wanted: bool,
             answers: Mapping[str, Mapping[str, Sequence[float]] | None]) -> Check:
    """
    Check that nobody on the way to the wheels is known to drop linear_y.

    :param on_the_way: who hears commands, directly or through another.
    :param wanted: whether commands can have a linear_y at all.
    :param answers: what each smoother says of its parameters ``SMOOTHER_SIGNS``; None where it
        said nothing.
    """
    if not wanted:
        return Check('linear_y', True, 'no command has a linear_y')
    on_the_way = list(on_the_way)
    problems = [(f'{one} drives a base that cannot strafe', 'set max_velocity y to 0.0 and drive '
                 'a policy with angular_z')
                for one in sorted({one.full_name for one in on_the_way
                                   if any(word in one.node for word in CANNOT_STRAFE)})]
    for name in smoothers(on_the_way):
        values = answers.get(name)
        if values is None:
            problems.append((f'{name} may drop linear_y and does not tell its parameters',
                             f'see that y of {", ".join(SMOOTHER_SIGNS)} is not 0.0 there'))
            continue
        shut = [key for key, sign in SMOOTHER_SIGNS.items()
                if len(values.get(key) or ()) < 2 or not values[key][1] * sign > 0]
        if shut:
            problems.append((f'{name} makes linear_y zero', f'give {", ".join(shut)} there a y '
                             'other than 0.0 (navigation2 #6292)'))
    return _verdict('linear_y', problems,
                    'nobody on the way to the wheels is known to drop linear_y')


def with_linear_y(said: str) -> bool:
    """Return whether a policy drives linear_y, by its sentence on its axes; yes in doubt."""
    return 'linear_y' in said or not any(axis in said for axis in TWIST_AXES)


def inference(age_s: float | None, fault: str) -> Check:
    """
    Check that the policy's node is alive and well.

    :param age_s: of the newest word on its health; None when none was heard.
    :param fault: what it reports, '' when nothing.
    """
    if age_s is None:
        return Check('inference', False, 'inference says nothing of itself',
                     'start inference, and see that it is active')
    if age_s > HEALTH_FRESH_S:
        return Check('inference', False, f'inference has been silent for {age_s:.1f} s',
                     'see its log, and start it again')
    if fault:
        return Check('inference', False, f'inference reports a fault: {fault}', 'mend it')
    return Check('inference', True, 'inference is alive')


def check_override(names: Iterable[str]) -> frozenset[str]:
    """
    Return the names of checks that do not keep from arming; empty ones are left out.

    :raises UserError: for a name that no check has.
    """
    known = (*GUARD_CHECKS, *INFERENCE_CHECKS)
    names = frozenset(name.strip() for name in names) - {''}
    for name in sorted(names - set(known)):
        raise UserError('override names a check that there is not', got=repr(name),
                        expected=', '.join(known), remedy=did_you_mean(name, known))
    return names


def refusal(checks: Sequence[Check], override: Collection[str]) -> str:
    """Return why these checks keep from arming, a line each, '' when they do not."""
    red = [check for check in checks if not check.ok and check.name not in override]
    if not red:
        return ''
    return '\n'.join(['Not armed: mend what is red, or name it in the parameter override.',
                      *(check.line for check in red)])


def report(checks: Iterable[Check]) -> str:
    """Return the checks as text, a line each."""
    return '\n'.join(check.line for check in checks)


def _verdict(name: str, problems: Sequence[tuple[str, str]], well: str) -> Check:
    """Return a check of several problems, each a sentence and its remedy; `well` without any."""
    if not problems:
        return Check(name, True, well)
    return Check(name, False, *('; '.join(words) for words in zip(*problems, strict=True)))


def _names(names: Iterable[str]) -> str:
    return ' and '.join(sorted(set(names)))


def _short(kind: str) -> str:
    return kind.rsplit('/', 1)[-1]
