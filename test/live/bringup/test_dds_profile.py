"""The shipped Fast DDS profile in live processes."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mobile_vla_ros.bringup.dds import (
    PROFILE,
    RANGE,
    VARIABLES,
    guard_env,
)
from mobile_vla_ros.bringup.processes import Processes
from mobile_vla_ros.bringup.share import share_folder
from mobile_vla_ros.bringup.spec import NodeSpec
from ros_helpers import wait_until

PATH = share_folder() / 'config' / PROFILE

# A network card in a private namespace.
CARD = (
    'ip link set lo up && ip link add card type veth peer name far && '
    'ip link set card addrgenmode none && ip link set far addrgenmode none && '
    'ip addr add 10.9.8.7/24 dev card && ip link set card up && ip link set far up'
)

PAGE = 4096
# Two processes, since within one Fast DDS uses no transport. The first argument is the
# set-up of the namespace that `unshare` creates.
TALK = textwrap.dedent("""
    import subprocess, sys, time
    if len(sys.argv) > 1:
        subprocess.run(sys.argv[1], shell=True, check=True)
        listener = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    import rclpy
    from std_msgs.msg import String
    rclpy.init()
    node = rclpy.create_node('talk_' + str(len(sys.argv)))
    deadline = time.monotonic() + 30
    if len(sys.argv) > 1:
        publisher = node.create_publisher(String, 'words', 10)
        while listener.poll() is None and time.monotonic() < deadline:
            publisher.publish(String(data='hello'))
            time.sleep(0.05)
        output = listener.communicate(timeout=30)[0]
        print(output.strip() or 'nothing')
        print(open('/proc/net/dev').read())
    else:
        received = []
        node.create_subscription(String, 'words', received.append, 10)
        while not received and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        print(received[0].data if received else 'nothing')
    """)


@pytest.fixture
def talk(tmp_path, ros_domain):
    """Run two processes in a private namespace: ``talk(kind, set_up, env)``."""
    script = tmp_path / 'talk.py'
    script.write_text(TALK)

    def run(kind: str, set_up: str, **env) -> str:
        unshare = ['unshare', '--map-root-user', kind]
        if subprocess.run([*unshare, 'true'], capture_output=True, check=False).returncode:
            pytest.skip('no right to make a namespace here')
        done = subprocess.run(
            [*unshare, sys.executable, str(script), set_up],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env={**os.environ, **dict.fromkeys(VARIABLES, str(PATH)), **env},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def segment_bytes(pid: int) -> int:
    """Return the size of Fast DDS's largest segment of shared memory in a process."""
    sizes = [
        int(end, 16) - int(start, 16)
        for start, end in re.findall(
            r'^(\w+)-(\w+) .*/dev/shm/fast(?:rtps|dds)_\w+$',
            Path(f'/proc/{pid}/maps').read_text(),
            re.M,
        )
    ]
    return max(sizes, default=0)


@pytest.mark.parametrize('sends_images', [True, False])
def test_only_the_sender_has_the_large_segment(ros_domain, tmp_path, sends_images):
    """The running Fast DDS reads the profile; another node's segment stays small."""
    # Alone: a process maps the segments of those that it receives from as well.
    spec = NodeSpec(
        'source', 'bench_source', {'width': 320, 'height': 240}, sends_images=sends_images
    )
    with Processes(tmp_path / 'log') as processes:
        processes.start(spec)

        def size() -> int:
            processes.check()
            found = segment_bytes(processes['source'].process.pid)
            return found if found > PAGE else 0  # being made

        found = wait_until(size, what='shared memory')
    assert (found > 3 * 1280 * 720 * 3) == sends_images
    assert found < 2_000_000 or sends_images


@pytest.mark.parametrize('discovery', ['LOCALHOST', 'SUBNET'])
def test_nodes_communicate_without_room_in_shared_memory(talk, discovery):
    """A container's /dev/shm may be tiny: Fast DDS continues over UDP."""
    output = talk(
        '--mount',
        'mount -t tmpfs -o size=200k tmpfs /dev/shm',
        ROS_AUTOMATIC_DISCOVERY_RANGE=discovery,
    )
    assert 'hello' in output.splitlines()


@pytest.mark.parametrize(('discovery', 'leaves'), [('LOCALHOST', False), ('SUBNET', True)])
def test_localhost_still_means_this_machine(talk, discovery, leaves):
    """With the profile, no packet leaves through the network card."""
    output = talk('--net', CARD, ROS_AUTOMATIC_DISCOVERY_RANGE=discovery)
    assert 'hello' in output.splitlines()
    assert (packets_sent(output) > 0) == leaves


def test_the_guard_s_profile_means_this_machine_too(talk):
    """It replaces LOCALHOST for the guard: no packet leaves either."""
    output = talk('--net', CARD, **guard_env({RANGE: 'LOCALHOST'}))
    assert 'hello' in output.splitlines()
    assert packets_sent(output) == 0


def packets_sent(output: str) -> int:
    """Return the kernel's count of packets sent through the card."""
    return int(re.search(r'card:\s*(.*)', output)[1].split()[9])


def segments(pid: int) -> set[str]:
    """Return Fast DDS's segments of shared memory that a process has mapped."""
    return set(re.findall(r'/dev/shm/fastrtps\S*', Path(f'/proc/{pid}/maps').read_text()))


@pytest.mark.parametrize('discovery', ['LOCALHOST', 'SUBNET'])
def test_the_guard_maps_no_shared_memory(client, nodes, monkeypatch, discovery):
    """A process without CPU time that holds a lock in shared memory would block the guard."""
    from geometry_msgs.msg import Twist

    commands = client.subscribe('cmd_vel', Twist)
    monkeypatch.setenv(RANGE, discovery)
    # Disarmed, it would be silent before a subscriber on a busy machine is found.
    guard = nodes.start('guard_node', params={'zero_while_disarmed': True})
    arena = nodes.start('sim_node')
    client.wait_for(lambda: len(commands) > 5 and segments(arena.pid), what='both nodes')
    assert not segments(guard.pid)
