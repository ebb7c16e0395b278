"""The shipped Fast DDS profile: room for raw images where they are sent, and no harm elsewhere."""

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


def test_the_arena_sends_images_and_the_others_do_not():
    """A segment costs its memory whole: only the one who sends images has it."""
    specs = [*RECORD.nodes(sim=True, console=False), *DRIVE.nodes(policy='p', sim=True)]
    assert {spec.name for spec in specs if spec.sends_images} == {'sim'}


@pytest.mark.parametrize('name', [*VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS'])
def test_the_user_s_own_choice_stands(name):
    """A profile or transports that the user has set stay."""
    assert set(image_sender_env({}).values()) == {str(PATH)}
    assert set(image_sender_env({name: ''})) == set(VARIABLES)
    assert image_sender_env({name: '/mine.xml'}) == {}


def test_who_chose_transports_for_the_guard_keeps_them():
    """But the profile for cameras, exported in the terminal that starts all, is no such choice."""
    guards = str(PATH.parent / GUARD_PROFILE)
    cameras = dict.fromkeys(VARIABLES, str(PATH))
    for environ in ({}, {RANGE: 'SUBNET'}, cameras):
        assert guard_env(environ)[BUILTIN] == 'UDPv4'
        assert not any(guard_env(environ)[name] for name in VARIABLES)
    for environ in ({RANGE: 'LOCALHOST'}, {'ROS_LOCALHOST_ONLY': '1', **cameras}):
        assert {guard_env(environ)[name] for name in VARIABLES} == {guards}
    for name in (*VARIABLES, BUILTIN):
        assert guard_env({name: '/mine.xml'}) == {}
