"""Golden frames: a policy reproduces the stored actions, or the check fails."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.bundle import load_bundle, save_bundle
from mobile_vla_ros.model.golden import (
    GOLDEN,
    golden_actions,
    make_golden,
    read_golden,
    write_golden,
)
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.golden_check import TOLERANCES, check_golden
from mobile_vla_ros.runtime.vla_policy import VlaPolicy

TYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def test_training_keeps_golden_frames_with_every_bundle(small_run):
    """A window of a validation episode, with the actions of that epoch's network."""
    for link in ('best', 'last'):
        folder = (small_run / link).resolve()
        spec, golden = read_spec(folder), read_golden(folder)
        assert golden.frames.shape == (4, 56, 56, 3) and golden.frames.std() > 1
        assert golden.actions.shape == (10, 2) and golden.precision == 'float32'
        loaded = load_bundle(folder, merge=False)
        again = golden_actions(
            loaded.network,
            loaded.tokenizer,
            spec,
            normalise(golden.frames, spec.image),
            golden.instruction,
        )
        np.testing.assert_allclose(again, golden.actions, atol=1e-6)


def test_a_bundle_has_the_camera_sizes_of_its_episodes(small_run):
    """The preflight compares them with the robot's camera."""
    assert read_spec(small_run / 'best').data['camera_sizes'] == [[64, 64]]


@pytest.mark.parametrize('precision', TYPES)
@pytest.mark.parametrize('name', ['small', 'builtin:demo'])
def test_golden_frames_are_reproduced_in_every_precision(small_run, name, precision):
    """Merged, as in driving, on this CPU; the sentence has the difference."""
    folder = small_run / 'best' if name == 'small' else name
    policy = VlaPolicy.load(folder, dtype=TYPES[precision])
    ok, sentence = check_golden(policy, read_golden(folder), precision)
    assert ok, sentence
    assert f'at most {TOLERANCES[precision]:g} in {precision}' in sentence


def _swap_colours(golden, _):
    return replace(golden, frames=golden.frames[..., ::-1].copy())


def _no_adapters(golden, policy):
    plain = load_bundle('builtin:demo', merge=False)
    plain.network.backbone.disable_adapter_layers()
    policy.network = plain.network
    return golden


def _another_head(golden, policy):
    with torch.no_grad():
        policy.network.head.motion[0].weight.mul_(1.5)
    return golden


def _not_a_number(golden, policy):
    with torch.no_grad():
        policy.network.action_token.fill_(torch.nan)
    return golden


@pytest.mark.parametrize(
    'fault',
    [
        _swap_colours,
        _no_adapters,
        _another_head,
        _not_a_number,
        lambda golden, _: replace(golden, instruction='stop'),
        lambda golden, _: replace(golden, frames=np.full_like(golden.frames, 120)),
    ],
    ids=['colours', 'adapters', 'head', 'nan', 'instruction', 'blank'],
)
def test_a_policy_that_computes_something_else_fails_even_in_bf16(fault):
    """The widest tolerance still distinguishes each of these from rounding."""
    policy = VlaPolicy.load('builtin:demo')
    ok, sentence = check_golden(policy, fault(read_golden('builtin:demo'), policy), 'bf16')
    assert not ok
    assert 'not reproduced' in sentence and 'precision:=fp32' in sentence


def test_a_check_leaves_no_features(small_run):
    """Features of golden frames never enter a window of a drive."""
    policy = VlaPolicy.load(small_run / 'best')
    check_golden(policy, read_golden(small_run / 'best'), 'fp32')
    assert not policy._features


def test_a_bundle_without_golden_frames_fails_with_a_remedy(policy_copy):
    """The command that adds them."""
    (policy_copy / GOLDEN).unlink()
    assert read_golden(policy_copy) is None
    ok, sentence = check_golden(VlaPolicy.load(policy_copy), None, 'fp32')
    assert not ok and 'mobile_vla replay EPISODE --policy POLICY --store-golden' in sentence


def test_golden_frames_of_another_policy_fail(policy_copy):
    """Another window, size or chunk: the sentence has both shapes."""
    policy = VlaPolicy.load(policy_copy)
    ok, sentence = check_golden(policy, read_golden('builtin:demo'), 'fp32')
    assert not ok and 'of another policy' in sentence
    assert '(4, 168, 168, 3)' in sentence and '(4, 56, 56, 3)' in sentence


def test_a_policy_driven_blind_skips_the_check(small_run):
    """A control drive (`blank`) computes something else on purpose."""
    ok, sentence = check_golden(
        VlaPolicy.load(small_run / 'best', blank='image'), read_golden(small_run / 'best'), 'fp32'
    )
    assert ok and 'without its image' in sentence


def test_a_control_has_its_own_golden_frames(small_run, tmp_path):
    """A bundle trained without its image: its frames are blank then and now."""
    loaded = load_bundle(small_run / 'best', merge=False)
    spec = replace(loaded.spec, blank='image')
    frames = read_golden(small_run / 'best').frames
    golden = make_golden(
        loaded.network,
        loaded.tokenizer,
        spec,
        frames,
        normalise(frames, spec.image),
        'go to the red box',
    )
    folder = save_bundle(tmp_path / 'blind', loaded.network, spec, golden)
    ok, sentence = check_golden(VlaPolicy.load(folder), read_golden(folder), 'fp32')
    assert ok and 'reproduced within' in sentence


def tensors(**changes):
    """Valid golden tensors, some of them changed or (None) left out."""
    found = {
        'frames': torch.zeros(4, 56, 56, 3, dtype=torch.uint8),
        'actions': torch.zeros(10, 2),
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ('content', 'metadata', 'expected'),
    [
        (b'', {}, 'is broken'),
        (b'\0' * 100, {}, 'is broken'),
        (b'{"frames": 1}', {}, 'is broken'),
        (tensors(), {}, 'no instruction'),
        (tensors(), {'instruction': ' '}, 'no instruction'),
        (tensors(frames=None), {'instruction': 'go'}, 'no tensor frames'),
        (
            tensors(frames=torch.zeros(4, 56, 56, 3)),
            {'instruction': 'go'},
            'frames is torch.float32 4 x 56 x 56 x 3, not torch.uint8',
        ),
        (tensors(actions=torch.zeros(10)), {'instruction': 'go'}, 'not torch.float32 in 2 dim'),
        (
            tensors(actions=torch.full((10, 2), torch.nan)),
            {'instruction': 'go'},
            'contains NaN or inf',
        ),
        (tensors(), {'instruction': 'go', 'precision': 'int4'}, "precision is 'int4'"),
        (tensors(), {'instruction': 'go', 'blank': 'eyes'}, "blank is 'eyes'"),
    ],
    ids=range(11),
)
def test_broken_and_foreign_files_raise_a_user_error(policy_copy, content, metadata, expected):
    """With the file and the command that writes it again."""
    if isinstance(content, bytes):
        (policy_copy / GOLDEN).write_bytes(content)
    else:
        save_file(content, policy_copy / GOLDEN, metadata)
    with pytest.raises(UserError) as caught:
        read_golden(policy_copy)
    assert expected in str(caught.value) and str(policy_copy / GOLDEN) in str(caught.value)
    assert '--store-golden' in str(caught.value)


def test_writing_golden_frames_changes_nothing_else_and_is_atomic(policy_copy, monkeypatch):
    """A failure leaves the old file; a success changes golden.safetensors alone."""
    others = {
        path: path.read_bytes()
        for path in policy_copy.rglob('*')
        if path.is_file() and path.name != GOLDEN
    }
    golden = read_golden(policy_copy)
    old = (policy_copy / GOLDEN).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr('os.replace', lambda *_: (_ for _ in ()).throw(OSError(28, 'full')))
        with pytest.raises(UserError, match='not enough disk space'):
            write_golden(policy_copy, replace(golden, instruction='stop'))
    assert (policy_copy / GOLDEN).read_bytes() == old
    write_golden(policy_copy, replace(golden, instruction='stop'))
    assert read_golden(policy_copy).instruction == 'stop'
    assert {
        path: path.read_bytes()
        for path in policy_copy.rglob('*')
        if path.is_file() and path.name != GOLDEN
    } == others


def test_the_built_in_policy_has_golden_frames():
    """builtin:demo: 224 x 224 as in its episodes, rendered in the arena."""
    assert read_spec('builtin:demo').data['camera_sizes'] == [[224, 224]]
    golden = read_golden('builtin:demo')
    assert golden.frames.shape == (4, 168, 168, 3) and golden.instruction
