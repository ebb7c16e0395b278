"""Camera faults during a drive of the live inference node: each stops the proposals."""

import json
import shutil
import time

import pytest

from driven import FAULT, HOLD, OK, PERIOD_S, Drive, FaultyCamera
from noise_camera import INSTRUCTION
from ros_helpers import wait_until

# The promise is zero at the wheels within 0.25 s, which `mobile_vla drill` measures. On a busy
# machine a test can only check that proposals stop, and that what is received shortly before the
# report of the fault may be handled shortly after it.
TOGETHER_S = 0.2
# Mode of the camera → a part of the fault's sentence.
FAULTS = {
    'frozen': 'the camera is frozen',
    'black': 'black',
    'small': 'changed from 64x48 rgb8',
    'grey': 'to 64x48 mono8',
    'zero': 'invalid image stamp',
    'late': 's old',
    'future': 'in the future',
    'jumped': 'clock jumped by -10.0 s',
    'silent': 'the camera is silent',
}


@pytest.fixture
def drive(nodes, client, small_run):
    """A node that drives the small policy."""
    received = Drive(client)
    nodes.start(
        'inference_node', params={'policy': str(small_run / 'best'), 'instruction': INSTRUCTION}
    )
    return received


def test_each_fault_stops_the_proposals_at_once_and_ends_with_its_cause(drive, client):
    """A fault, then a hold while the window fills with new frames, then the drive continues."""
    with FaultyCamera(client) as camera:
        drive.until(OK, timeout_s=60)
        for mode, sentence in FAULTS.items():
            drive.until(OK)
            time.sleep(4 * PERIOD_S)  # drive for a while, so that the guard reports a moving base
            camera.turn(mode)
            reported_at = drive.until(FAULT, sentence)
            seen = len(drive.proposals)
            camera.turn('well')
            held = drive.until(HOLD, 'the window')
            fine = drive.until(OK)
            between = [
                at for at in drive.proposals.times[seen:] if reported_at + TOGETHER_S < at < held
            ]
            assert not between, mode
            assert held < fine


def test_a_static_image_is_no_fault_at_rest_and_checks_are_published(drive, client):
    """A simulated camera has no noise; policy/health has inference's preflight checks."""
    with FaultyCamera(client) as camera:
        camera.state, camera.speed = 'waiting', 0.0
        drive.until(OK, timeout_s=60)
        camera.turn('frozen')
        seen = len(drive.healths)
        wait_until(lambda: len(drive.healths) > seen + 8, what='two seconds of health')
        values = drive.reported(plan_age_s='0.')
    reports = [array.status[0] for array in drive.healths.messages[seen:]]
    assert any(report.level == OK for report in reports)
    # A busy machine may send or compute late, which is a hold or a fault of its own.
    assert not [report.message for report in reports if FAULTS['frozen'] in report.message]
    checks = {one.name: one for one in drive.healths.last.status[1:]}
    assert set(checks) == {
        f'check/{name}'
        for name in (
            'camera_rate',
            'camera_size',
            'clock_skew',
            'free_memory',
            'golden_frames',
            'axes',
            'instruction',
        )
    }
    assert checks['check/axes'].level == OK
    assert checks['check/clock_skew'].level == OK
    assert checks['check/camera_size'].level == FAULT  # 64x48, and the policy's input is 56x56
    assert 'smaller than what the policy reads (56x56)' in checks['check/camera_size'].message
    assert 5 < float(values['proposals_hz']) < 50
    assert 4 < float(values['camera_hz']) < 16
    assert 0 <= float(values['image_age_s']) < 1
    assert 0 <= float(values['plan_age_s']) < 1
    assert 0 < float(values['inference_s']) < 5
    assert (
        0
        < float(values['callback_to_proposal_p50_ms'])
        <= float(values['callback_to_proposal_p99_ms'])
        < 5000
    )
    assert int(values['encoded_frames']) > 4
    assert values['next_policy'] == 'none'


def test_the_preflight_names_the_camera_of_the_training(nodes, client, small_run, tmp_path):
    """A policy of another camera than the one it drives with is no reason to refuse."""
    bundle = tmp_path / 'wrist'
    shutil.copytree((small_run / 'best').resolve(), bundle)
    manifest = json.loads((bundle / 'policy.json').read_text())
    (bundle / 'policy.json').write_text(json.dumps({**manifest, 'camera': '/wrist/image_raw'}))
    received = Drive(client)
    params = {'policy': str(bundle), 'image_transport': 'compressed'}
    process = nodes.start('inference_node', params=params)
    process.wait_for_output('warning: trained on /wrist/image_raw, drives with /camera/image_raw')
    expected = 'check/camera_topic'
    wait_until(
        lambda: (
            len(received.healths)
            and expected in [one.name for one in received.healths.last.status]
        ),
        what='the check',
    )
    (check,) = [one for one in received.healths.last.status if one.name == expected]
    assert check.level == OK and 'drives with /camera/image_raw' in check.message
