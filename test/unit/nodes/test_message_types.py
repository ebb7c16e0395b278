"""Definitions of message types, made from their classes."""

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.nodes.recorder.message_types import definition, message_class

# A class does not distinguish `char` from `uint8`, which have the same layout.
WITH_CHAR = {
    'rmw_dds_common/msg/Gid',
    'rmw_dds_common/msg/NodeEntitiesInfo',
    'rmw_dds_common/msg/ParticipantEntitiesInfo',
    'service_msgs/msg/ServiceEventInfo',
    'std_msgs/msg/Char',
}


def test_definitions_describe_the_types_of_ros():
    """Every installed type: rosbags parses its definition to the type that ROS hashes."""
    known, differ, count = get_typestore(Stores.LATEST), set(), 0
    for name in known.types:
        try:
            kind = message_class(name)
        except (ImportError, AttributeError, ValueError):
            continue
        made = get_typestore(Stores.EMPTY)
        made.register(get_types_from_msg(definition(kind), name))
        count += 1
        if made.hash_rihs01(name) != known.hash_rihs01(name):
            differ.add(name)
    assert count > 100 and differ <= WITH_CHAR


def test_a_header_is_known_by_the_first_field():
    """Only there it has the stamp of the message."""

    def has_header(name: str) -> bool:
        return Channel('/topic', name, definition(message_class(name))).has_header

    stamped = [has_header(f'nav_msgs/msg/{name}') for name in ('Odometry', 'Goals')]
    assert stamped == [True, True]
    assert not has_header('geometry_msgs/msg/Twist')
    assert not has_header('std_msgs/msg/Empty')
