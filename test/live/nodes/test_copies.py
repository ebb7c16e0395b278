"""A topic that is received twice, latched and not: the copies change neither order nor age."""

import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Bool, String

from mobile_vla_ros.nodes.guard.inputs import EstopTopic, subscribe_to_policy
from mobile_vla_ros.nodes.shared.clocks import steady_ns
from mobile_vla_ros.nodes.shared.messages import LATCHED
from mobile_vla_ros.nodes.shared.topics import InstructionTopic
from ros_helpers import TIMEOUT_S

AGE_S, SLACK_NS = 0.4, 20_000_000


@pytest.fixture
def spinning(ros_domain):
    """Return a node and a function that spins it until a predicate is true."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('receiver', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin_until(predicate):
        deadline = time.monotonic() + TIMEOUT_S
        while not predicate():
            assert time.monotonic() < deadline
            executor.spin_once(timeout_sec=0.02)

    yield node, spin_until
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def health(word: str) -> DiagnosticArray:
    level = DiagnosticStatus.ERROR if word == 'two' else DiagnosticStatus.OK
    check = DiagnosticStatus(name='check/word', message=word)
    return DiagnosticArray(status=[DiagnosticStatus(level=level), check])


def receive_health(node, found):
    subscribe_to_policy(
        node, lambda *_: None, lambda _, checks, ns: found.append((checks[0].sentence, ns))
    )


def receive_instruction(node, found):
    node.topic = InstructionTopic(node, lambda text: found.append((text, 0)))


def receive_estop(node, found):
    node.topic = EstopTopic(node, lambda pressed, ns: found.append((str(pressed), ns)))


@pytest.mark.parametrize(
    ('topic', 'receive', 'make', 'undone'),
    [
        ('policy/health', receive_health, health, {'one'}),  # and two, a fault, always counts
        ('instruction', receive_instruction, lambda text: String(data=text), {'one', 'two'}),
    ],
    ids=['health', 'instruction'],
)
def test_of_what_waited_together_the_newest_is_the_last(
    spinning, client, topic, receive, make, undone
):
    """The latched subscription keeps one message, and its copy comes before older ones."""
    node, spin_until = spinning
    found: list[tuple[str, int]] = []
    receive(node, found)
    publisher = client.publisher(topic, type(make('')), LATCHED)
    client.wait_for(lambda: publisher.get_subscription_count() == 2, what='the subscriptions')
    mine = [one for one in node.subscriptions if one.topic_name == publisher.topic_name]
    client.wait_for(  # each side finds the other by itself
        lambda: len(mine) == 2 and all(one.get_publisher_count() for one in mine),
        what='both subscriptions with the publisher',
    )
    for word in ('one', 'two', 'three'):
        publisher.publish(make(word))
        time.sleep(0.01)
    assert publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=TIMEOUT_S))
    spin_until(lambda: found)
    end = time.monotonic() + 0.3
    spin_until(lambda: time.monotonic() > end)
    words = [word for word, _ in found]
    assert not undone & {*words[words.index('three') :]}
    assert 'two' in words
    assert words[-1] == 'three'


@pytest.mark.parametrize(
    ('topic', 'receive', 'make'),
    [
        ('policy/health', receive_health, health),
        ('estop', receive_estop, lambda word: Bool(data=word == 'new')),
    ],
    ids=['health', 'estop'],
)
def test_a_latched_message_is_as_old_as_it_is(spinning, client, topic, receive, make):
    """The first one that arrives is compared with one that is sent now."""
    node, spin_until = spinning
    found: list[tuple[str, int]] = []
    publisher = client.publisher(topic, type(make('')), LATCHED)
    began_ns = steady_ns()
    publisher.publish(make('old'))
    ended_ns = steady_ns()
    time.sleep(AGE_S)
    receive(node, found)
    spin_until(lambda: found)
    assert began_ns - SLACK_NS < found[0][1] < ended_ns + AGE_S * 1e9 / 2
    began_ns = steady_ns()
    publisher.publish(make('new'))
    spin_until(lambda: found[-1][0] != found[0][0])
    assert began_ns - SLACK_NS < found[-1][1]
