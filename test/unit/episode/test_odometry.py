"""Odometry as it is stored: decoded without ROS, and the state that a frame has of it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from driven_bases import SECOND, message
from mobile_vla_ros.episode.odometry import STATE, TYPE, read_odometry

STORE = get_typestore(Stores.ROS2_JAZZY)
names = st.text(st.characters(codec='ascii', exclude_characters='\0'), max_size=12)
floats = st.floats(-1e6, 1e6)


def serialised(frames, stamp_ns, position, orientation, six, little_endian):
    """Return the bytes that another implementation writes."""
    kind = STORE.types
    point, quaternion = 'geometry_msgs/msg/Point', 'geometry_msgs/msg/Quaternion'
    vector, covariance = kind['geometry_msgs/msg/Vector3'], np.arange(36.0)
    stamp = kind['builtin_interfaces/msg/Time'](*divmod(stamp_ns, SECOND))
    pose = kind['geometry_msgs/msg/Pose'](kind[point](*position), kind[quaternion](*orientation))
    twist = kind['geometry_msgs/msg/Twist'](vector(*six[:3]), vector(*six[3:]))
    odometry = kind[TYPE](
        kind['std_msgs/msg/Header'](stamp, frames[0]),
        frames[1],
        kind['geometry_msgs/msg/PoseWithCovariance'](pose, covariance),
        kind['geometry_msgs/msg/TwistWithCovariance'](twist, covariance),
    )
    return bytes(STORE.serialize_cdr(odometry, TYPE, little_endian=little_endian))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(names, names),
    st.integers(0, 2**31 * SECOND - 1),
    st.tuples(*[floats] * 3),
    st.floats(-math.pi, math.pi),
    st.tuples(*[floats] * 6),
    st.booleans(),
)
def test_messages_of_either_byte_order_are_read_as_they_were_written(
    frames, stamp_ns, position, yaw, six, little
):
    """Names of any length move what follows them; the yaw is that of any quaternion."""
    orientation = (0.0, 0.0, 3 * math.sin(yaw / 2), 3 * math.cos(yaw / 2))
    data = serialised(frames, stamp_ns, position, orientation, six, little)
    found = read_odometry([data], np.array([7]))
    assert (len(found), found.left_out, found.by_pose) == (1, 0, False)
    assert found.steady_ns[0] == 7
    assert found.pose[0, :2].tolist() == list(position[:2])
    assert math.cos(found.pose[0, 2] - yaw) == pytest.approx(1)
    assert found.twist[0].tolist() == list(six)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_break_the_decoder(data):
    """Cut, changed or foreign messages are left out and counted, or read as finite values."""
    whole = message((1.0, 2.0, 0.5), (0.1,) * 6, frames=('odom', data.draw(names)))
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, max(len(broken) - 1, 0)), max_size=4)):
        if broken:
            broken[at] = data.draw(st.integers(0, 255))
    found = read_odometry([bytes(broken), whole, data.draw(st.binary(max_size=900))], np.arange(3))
    assert len(found) + found.left_out == 3 and 1 in found.steady_ns
    assert np.isfinite(found.twist).all() and np.isfinite(found.pose[:, :2]).all()


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e300])
def test_values_that_are_no_measurement_are_left_out_and_counted(value):
    """Of the pose or of the twist; the other rows stay with their own times."""
    good = message((1.0, 0.0, 0.0), (0.3, 0, 0, 0, 0, 0.0), stamp_ns=5)
    rows = [good, message((value, 0.0, 0.0)), message(twist=(0, 0, 0, 0, 0, value)), good]
    found = read_odometry(rows, np.array([10, 20, 30, 40]))
    assert found.left_out == 2 and found.steady_ns.tolist() == [10, 40]


def test_an_empty_orientation_is_no_yaw_and_an_empty_twist_is_the_pose_s_change():
    """Drivers leave fields at zero that they do not measure."""
    found = read_odometry([message(orientation=(0.0,) * 4, twist=(0.2,) * 6)], np.array([0]))
    assert np.isnan(found.pose[0, 2]) and found.twist[0, 0] == 0.2
    # A circle to the left at 0.5 m/s and 1 rad/s.
    time_s = np.arange(0, 3, 0.05)
    circle = [(0.5 * math.sin(s), 0.5 * (1 - math.cos(s)), s) for s in time_s]
    found = read_odometry([message(pose) for pose in circle], (time_s * SECOND).astype(np.int64))
    assert found.by_pose
    assert found.twist[5:, [0, 1, 5]] == pytest.approx(np.tile([0.5, 0, 1], (55, 1)), abs=0.01)
    still = read_odometry([message()] * 9, np.arange(9) * SECOND)
    assert not still.by_pose and not still.twist.any()


def test_the_state_of_a_frame_is_the_newest_odometry_before_it():
    """Never a later one, which no policy could have; NaN if it is old or there is none."""
    rows = [message((n, -n, 0.1 * n), (n, 0, 0, 0, 0, n / 10)) for n in (1.0, 2.0)]
    found = read_odometry(rows, np.array([1, 2]) * SECOND)
    frames_ns = np.array([0.9, 1.0, 1.4, 1.6, 2.1]) * SECOND
    state = found.state(frames_ns.astype(np.int64))
    assert STATE == ('linear_x', 'linear_y', 'angular_z', 'x', 'y', 'yaw')
    assert np.isnan(state[[0, 3]]).all()
    assert state[[1, 2]] == pytest.approx(np.array([[1, 0, 0.1, 1, -1, 0.1]] * 2))
    assert state[4] == pytest.approx([2, 0, 0.2, 2, -2, 0.2])
    assert np.isnan(read_odometry([], np.zeros(0, np.int64)).state(np.array([5]))).all()
