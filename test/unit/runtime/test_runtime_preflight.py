"""Inference's preflight checks, and policies that are refused before they are loaded."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime.loading import PolicySettings, load_policy
from mobile_vla_ros.runtime.policy import NoOpPolicy
from mobile_vla_ros.runtime.preflight import (
    check_axes,
    check_camera_rate,
    check_camera_size,
    check_camera_topic,
    check_clock_skew,
    check_free_memory,
    check_instruction,
)
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.types import Frame

GB = 10**9


@pytest.mark.parametrize(
    ('hz', 'ok', 'expected'),
    [
        (30.0, True, '30.0 Hz'),
        (9.0, True, '9.0 Hz'),
        (8.9, False, 'at least 9'),
        (0.0, False, 'no image yet'),
    ],
)
def test_the_camera_keeps_up_with_the_policy(hz, ok, expected):
    """At least nine tenths of the policy's rate."""
    check = check_camera_rate(hz, 10.0)
    assert (check.name, check.ok, expected in check.sentence) == ('camera_rate', ok, True)


def test_a_word_that_the_policy_does_not_know_is_red():
    """It is named; a policy without a tokenizer, or one that reads no instruction, knows all."""
    policy = VlaPolicy.load('builtin:demo')
    assert check_instruction(policy, 'go to the red box').ok
    assert check_instruction(policy, '').ok
    check = check_instruction(policy, '빨간 상자로 go')
    assert (check.name, check.ok) == ('instruction', False)
    assert "does not know 빨간, 상자로 in '빨간 상자로 go'" in check.sentence
    policy.spec = replace(policy.spec, blank='instruction')
    assert check_instruction(policy, '빨간 상자로 go').ok
    assert check_instruction(NoOpPolicy(), '빨간 상자로 go').ok


@pytest.mark.parametrize(
    ('size', 'trained', 'ok', 'expected'),
    [
        ((640, 480), [[1280, 720], [320, 240]], True, 'trained on'),
        ((640, 472), [[640, 480]], True, ''),
        ((640, 464), [[640, 480]], False, 'another aspect ratio'),
        ((640, 480), [], True, '640x480'),
        ((200, 168), [[200, 168]], True, ''),
        ((300, 160), [[300, 160]], False, 'smaller'),
        (None, [], False, 'no image yet'),
    ],
)
def test_the_image_has_the_aspect_ratio_of_the_training(size, trained, ok, expected):
    """Within 2 %, and no side is smaller than the policy's square."""
    check = check_camera_size(size, 168, trained)
    assert (check.ok, expected in check.sentence) == (ok, True), check.sentence


def test_another_camera_than_in_training_is_a_warning_and_never_red():
    """A robot may give the same camera another name."""
    same = check_camera_topic('/wrist/image_raw', '/wrist/image_raw')
    assert same.ok and same.sentence.startswith('trained on /wrist/image_raw, drives with /wrist')
    other = check_camera_topic('/wrist/image_raw', '/camera/image_raw')
    assert other.ok and 'warning: trained on /wrist/image_raw, drives with /camera' in other.line


@pytest.mark.parametrize(
    ('late', 'ok', 'expected'),
    [
        ((0.0, 0.1), True, '+0.100'),
        ((-0.1, 0.3), True, ''),
        ((-0.11, 0.1), False, '-0.110'),
        ((0.0, 0.31), False, '+0.310'),
        (None, False, 'no image yet'),
    ],
)
def test_the_clocks_agree(late, ok, expected):
    """Stamps are within the tolerance, and images within the maximum age."""
    check = check_clock_skew(late, 0.1, 0.3)
    assert (check.ok, expected in check.sentence) == (ok, True), check.sentence


@pytest.mark.parametrize(
    ('late', 'by_receipt', 'expected'),
    [
        (None, False, 'no image has a valid stamp; '),
        (None, True, 'no image has a time of sending'),
        ((0.0, 0.4), True, '+0.400 s after they were sent; exposure and driver are not counted'),
        ((0.0, 1.7e9), False, 'camera_time:=receipt'),
        ((0.0, 3.0), False, 'find out what delays'),
    ],
)
def test_a_wrong_clock_and_a_slow_link_have_their_own_remedies(late, by_receipt, expected):
    """Images arrive, but their times are unknown or out of range."""
    check = check_clock_skew(late, 0.1, 0.3, images=True, by_receipt=by_receipt)
    assert (check.ok, expected in check.sentence) == (False, True), check.sentence


@pytest.mark.parametrize(
    ('late', 'ok', 'expected'),
    [
        ((0.11, 0.29), True, '-0.090 to +0.090 s after they were sent; camera_latency_s 0.2 s is'),
        ((0.09, 0.29), False, '-0.110 s after they were sent; camera_latency_s 0.2 s is added; '),
        (
            (0.2, 0.31),
            False,
            '+0.110 s after they were sent; camera_latency_s 0.2 s is added; -0.1',
        ),
        ((0.2, 0.31), False, 'to +0.1 is allowed'),
    ],
)
def test_the_camera_s_latency_is_told_from_the_transport(late, ok, expected):
    """It counts as age, and hides no clock of the sender that is ahead."""
    check = check_clock_skew(late, 0.1, 0.3, by_receipt=True, latency_s=0.2)
    assert (check.ok, expected in check.sentence) == (ok, True), check.sentence


@pytest.mark.parametrize(
    ('rooms', 'ok'),
    [
        ([('memory', 2 * GB, 16 * GB)], True),
        ([('memory', 1 * GB, 16 * GB)], False),
        ([('memory', 6 * GB // 10, 2 * GB)], True),
        ([('memory', 4 * GB // 10, 2 * GB)], False),
        ([('memory', 8 * GB, 16 * GB), ('GPU', GB, 80 * GB)], False),
    ],
)
def test_memory_is_left(rooms, ok):
    """At least a tenth and half a GB, also of a GPU in use."""
    assert check_free_memory(rooms).ok == ok


@pytest.mark.parametrize(
    ('axes', 'limits', 'lacking'),
    [
        (('linear_x', 'linear_y'), (1.0, 1.0, 0.0), ''),
        (('linear_x', 'linear_y'), (1.0, 0.0, 1.0), 'linear_y'),
        (('linear_x', 'angular_z'), (1.0, 0.0, 0.0), 'angular_z'),
        (('linear_x', 'linear_z'), (1.0, 1.0, 1.0), 'linear_z'),
    ],
)
def test_the_base_has_the_axes_of_the_policy(axes, limits, lacking):
    """A limit of 0.0 means that the base lacks the axis; a planar base lacks linear_z."""
    check = check_axes(axes, limits)
    assert check.ok == (not lacking)
    assert f'no {lacking}' in check.sentence or not lacking


def test_a_policy_with_an_axis_that_the_base_lacks_is_refused_before_loading(small_run, tmp_path):
    """With the axis and a remedy; the missing backbone shows that none was loaded."""
    folder = tmp_path / 'policy'
    shutil.copytree(small_run / 'best', folder)
    manifest = json.loads((folder / 'policy.json').read_text())
    manifest['backbone']['id'] = '/no/such/backbone'
    (folder / 'policy.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match='the base has no linear_y; if it has, set a limit'):
        load_policy(str(folder), PolicySettings(max_velocity=(1.0, 0.0, 1.0)))


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'precision': 'fp12'}, "got 'fp12'"),
        ({'max_velocity': (1.0, -1.0, 1.0)}, 'zero or more'),
        ({'max_velocity': (1.0, 1.0)}, 'three numbers'),
        ({'max_velocity': (1.0, 1.0, float('nan'))}, 'zero or more'),
    ],
)
def test_invalid_settings_are_refused(options, expected):
    """With a UserError."""
    with pytest.raises(UserError, match=expected):
        PolicySettings(**options)


def test_the_no_op_policy_proposes_zero_from_every_frame():
    """30 Hz, one frame, no golden frames."""
    ready = load_policy('builtin:noop', PolicySettings())
    assert ready.golden_ok
    assert (ready.policy.spec.rate_hz, ready.policy.spec.window) == (30.0, 1)
    plan = ready.policy.infer([Frame(np.zeros((4, 4, 3), np.uint8), 7, 7)], '')
    assert plan.stamp_ns == 7
    assert not plan.twists.any()
    assert len(plan.twists) == 30


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_a_policy_drives_in_each_precision(small_run, precision):
    """Nearly the same actions, golden frames within tolerance."""
    exact = load_policy(str(small_run / 'best'), PolicySettings(device='cpu')).policy
    ready = load_policy(str(small_run / 'best'), PolicySettings(device='cpu', precision=precision))
    assert ready.golden_ok, ready.golden_sentence
    window = [
        Frame(
            np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8),
            number * 10**8,
            0,
        )
        for number in range(1, 5)
    ]
    plans = [policy.infer(window, 'go to the red box') for policy in (exact, ready.policy)]
    np.testing.assert_allclose(plans[0].twists, plans[1].twists, atol=0.02)


@pytest.mark.exhaustive
def test_a_missing_compiler_is_reported_when_loading(small_run, monkeypatch):
    """Not at the first frame; with a remedy."""
    import torch

    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, 'cxx', ('/no/such/compiler',))
    monkeypatch.setenv('TORCHINDUCTOR_FORCE_DISABLE_CACHES', '1')
    with pytest.raises(UserError, match='cannot compile the policy on cpu') as refused:
        load_policy(str(small_run / 'best'), PolicySettings(device='cpu', compile=True))
    assert 'compile:=false' in str(refused.value)
    torch._dynamo.reset()
