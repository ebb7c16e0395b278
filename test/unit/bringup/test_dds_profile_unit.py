"""The shipped Fast DDS profile: room for raw images in nodes that publish them."""

import xml.etree.ElementTree as ElementTree

import pytest

from mobile_vla_ros.bringup.dds import (
    BUILTIN,
    GUARD_PROFILE,
    PROFILE,
    RANGE,
    VARIABLES,
    guard_env,
    image_sender_env,
)
from mobile_vla_ros.bringup.share import share_folder
from mobile_vla_ros.bringup.stacks import DRIVE, RECORD

PATH = share_folder() / 'config' / PROFILE
NAMESPACE = '{http://www.eprosima.com}'


def test_the_profile_has_room_for_several_frames():
    """Shared memory and UDP, the former for at least three raw 720p images."""
    root = ElementTree.parse(PATH).getroot()
    kinds = [one.text for one in root.iter(f'{NAMESPACE}type')]
    assert kinds == ['SHM', 'UDPv4']
    assert int(next(root.iter(f'{NAMESPACE}segment_size')).text) > 3 * 1280 * 720 * 3


def test_only_the_arena_publishes_images():
    """A segment allocates its whole size, so only nodes that publish images have it."""
    specs = [*RECORD.nodes(sim=True, console=False), *DRIVE.nodes(policy='p', sim=True)]
    assert {spec.name for spec in specs if spec.sends_images} == {'sim'}


@pytest.mark.parametrize('name', [*VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS'])
def test_the_user_s_own_profile_is_kept(name):
    """A profile or transports that the user has set are not replaced."""
    assert set(image_sender_env({}).values()) == {str(PATH)}
    assert set(image_sender_env({name: ''})) == set(VARIABLES)
    assert image_sender_env({name: '/mine.xml'}) == {}


def test_the_user_s_transports_of_the_guard_are_kept():
    """But a camera profile, exported in the terminal that starts all nodes, is not."""
    guards = str(PATH.parent / GUARD_PROFILE)
    cameras = dict.fromkeys(VARIABLES, str(PATH))
    for environ in ({}, {RANGE: 'SUBNET'}, cameras):
        assert guard_env(environ)[BUILTIN] == 'UDPv4'
        assert not any(guard_env(environ)[name] for name in VARIABLES)
    for environ in ({RANGE: 'LOCALHOST'}, {'ROS_LOCALHOST_ONLY': '1', **cameras}):
        assert {guard_env(environ)[name] for name in VARIABLES} == {guards}
    for name in (*VARIABLES, BUILTIN):
        assert guard_env({name: '/mine.xml'}) == {}
