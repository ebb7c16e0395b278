"""Hot swap in the live node: another policy loads during a drive and replaces the first."""

import json
import signal
import time

import numpy as np
import pytest
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters

from changed_policies import changed_policy
from driven import OK, PERIOD_S, Drive, FaultyCamera
from noise_camera import INSTRUCTION
from ros_helpers import wait_until


@pytest.fixture
def set_next(client):
    """Return a function that sets the parameter next_policy."""

    def set_parameter(name: str):
        done = client.call(
            'inference/set_parameters',
            SetParameters,
            SetParameters.Request(
                parameters=[
                    Parameter(
                        name='next_policy',
                        value=ParameterValue(
                            type=ParameterType.PARAMETER_STRING, string_value=name
                        ),
                    )
                ]
            ),
        )
        return done.results[0]

    return set_parameter


def test_a_policy_loads_during_a_drive_and_replaces_it_at_rest(
    nodes, client, set_next, small_run, tmp_path
):
    """It must reproduce its golden frames; failures are reported; one call swaps back."""
    best = small_run / 'best'
    first = str(best)
    scale = json.loads((best / 'policy.json').read_text())['actions']['scale']
    other = str(
        changed_policy(best, tmp_path / 'other', actions={'scale': [2 * one for one in scale]})
    )
    untried = str(changed_policy(best, tmp_path / 'untried'))
    (tmp_path / 'untried' / 'golden.safetensors').unlink()
    sideways = str(
        changed_policy(
            best,
            tmp_path / 'sideways',
            actions={'axes': ['linear_x', 'angular_z'], 'units': ['m/s', 'rad/s']},
        )
    )
    drive = Drive(client)
    process = nodes.start(
        'inference_node',
        params={'policy': first, 'instruction': INSTRUCTION, 'max_velocity': [1.0, 1.0, 0.0]},
        env={},  # not forked, because of its end
    )
    with FaultyCamera(client) as camera:
        drive.until(OK, timeout_s=60)
        assert 'no next policy' in client.call('inference/swap').message

        # A policy that cannot be loaded or checked does not affect the driving one.
        for name, words in (
            ('/no/such/policy', 'no such folder'),
            (untried, 'no golden frames'),
            (sideways, 'the base has no angular_z'),
        ):
            assert set_next(name).successful
            assert first == drive.reported(next_policy='refused', next_policy_said=words)['policy']
            assert not client.call('inference/swap').success

        seen = len(drive.proposals)
        assert set_next(other).successful
        words = drive.reported(next_policy='ready')['next_policy_said']
        assert 'golden frames are reproduced' in words
        assert 'GB in use' in words
        assert len(drive.proposals) > seen + 5  # the drive continued

        refused = client.call('inference/swap')
        assert (refused.success, 'the base is driven' in refused.message) == (False, True)
        camera.state, camera.speed = 'disarmed', 0.0
        wait_until(lambda: client.call('inference/swap').success, what='the swap')
        drive.until(OK)
        assert drive.reported(policy=other)['next_policy'] == 'none'
        camera.state, camera.speed = 'driving', 0.5
        time.sleep(4 * PERIOD_S)  # the guard has reported it
        assert 'driven' in client.call('inference/swap_back').message
        camera.state, camera.speed = 'waiting', 0.0
        wait_until(lambda: client.call('inference/swap_back').success, what='the swap back')
        drive.until(OK)
        assert drive.reported(policy=first)
    # torch would abort a process that ends while another thread loads.
    assert set_next(other).successful
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert 'Traceback' not in process.output


@pytest.mark.quiet_machine
def test_proposals_do_not_wait_for_a_policy_that_loads(nodes, client, set_next, small_run):
    """The guard expects one every 0.2 s; one that is late in a busy moment is no fault yet."""
    best = str(small_run / 'best')
    drive = Drive(client)
    nodes.start('inference_node', params={'policy': best, 'instruction': INSTRUCTION})
    with FaultyCamera(client):
        drive.until(OK, timeout_s=60)
        seen = len(drive.proposals)
        assert set_next(best).successful
        drive.reported(next_policy='ready')
        assert np.diff(drive.proposals.times[seen:]).max() < 0.3
