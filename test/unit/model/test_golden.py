"""Golden frames: what a bundle was shown and said comes back, or the drive is refused."""

import shutil
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


@pytest.fixture
def copy(small_run, tmp_path):
    """A copy of the small run's best bundle, to break."""
    return shutil.copytree(small_run / 'best', tmp_path / 'policy')


def test_training_keeps_golden_frames_with_every_bundle(small_run):
    """Each epoch's own: the window of a take that validates, and what this network says of it."""
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


def test_a_bundle_names_the_camera_sizes_of_its_takes(small_run):
    """What preflight holds the robot's camera against."""
    assert read_spec(small_run / 'best').data['camera_sizes'] == [[64, 64]]


@pytest.mark.parametrize('precision', TYPES)
@pytest.mark.parametrize('name', ['small', 'builtin:demo'])
def test_golden_frames_come_back_in_every_precision(small_run, name, precision):
    """Merged, through the real path, on this CPU: green, with the figure."""
    folder = small_run / 'best' if name == 'small' else name
    policy = VlaPolicy.load(folder, dtype=TYPES[precision])
    well, said = check_golden(policy, read_golden(folder), precision)
    assert well, said
    assert f'at most {TOLERANCES[precision]:g} in {precision}' in said


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
def test_a_policy_that_computes_something_else_is_red_even_in_bf16(fault):
    """The widest tolerance still tells each of these from rounding, on the policy that ships."""
    policy = VlaPolicy.load('builtin:demo')
    well, said = check_golden(policy, fault(read_golden('builtin:demo'), policy), 'bf16')
    assert not well
    assert 'not reproduced' in said and 'precision:=fp32' in said


def test_a_check_leaves_nothing_behind(small_run):
    """Features of golden frames never enter a window that is driven by."""
    policy = VlaPolicy.load(small_run / 'best')
    check_golden(policy, read_golden(small_run / 'best'), 'fp32')
    assert not policy._features


def test_a_bundle_without_them_is_red_with_the_remedy(copy):
    """The command that adds them is named."""
    (copy / GOLDEN).unlink()
    assert read_golden(copy) is None
    well, said = check_golden(VlaPolicy.load(copy), None, 'fp32')
    assert not well and 'mobile_vla replay EPISODE --policy POLICY --store-golden' in said


def test_those_of_another_policy_are_red(copy):
    """Another window, size or chunk: both shapes are said."""
    policy = VlaPolicy.load(copy)
    well, said = check_golden(policy, read_golden('builtin:demo'), 'fp32')
    assert not well and 'of another policy' in said
    assert '(4, 168, 168, 3)' in said and '(4, 56, 56, 3)' in said


def test_a_policy_driven_blind_is_not_held_to_them(small_run):
    """A control of a drive (`blank`) says something else on purpose."""
    well, said = check_golden(
        VlaPolicy.load(small_run / 'best', blank='image'), read_golden(small_run / 'best'), 'fp32'
    )
    assert well and 'without its image' in said


def test_a_control_has_golden_frames_of_its_own(small_run, tmp_path):
    """A bundle that was trained without its image: the frames are blank to it then and now."""
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
    well, said = check_golden(VlaPolicy.load(folder), read_golden(folder), 'fp32')
    assert well and 'reproduced within' in said


def tensors(**changes):
    """Golden tensors of the right kind, some of them changed or (None) left out."""
    found = {
        'frames': torch.zeros(4, 56, 56, 3, dtype=torch.uint8),
        'actions': torch.zeros(10, 2),
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ('content', 'said', 'expected'),
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
def test_broken_and_foreign_files_are_a_sentence(copy, content, said, expected):
    """Never a traceback; the file is named, and the command that writes it anew."""
    if isinstance(content, bytes):
        (copy / GOLDEN).write_bytes(content)
    else:
        save_file(content, copy / GOLDEN, said)
    with pytest.raises(UserError) as caught:
        read_golden(copy)
    assert expected in str(caught.value) and str(copy / GOLDEN) in str(caught.value)
    assert '--store-golden' in str(caught.value)


def test_writing_them_changes_nothing_else_and_is_whole_or_absent(copy, monkeypatch):
    """A failure leaves the old file; a success touches golden.safetensors alone."""
    others = {
        path: path.read_bytes()
        for path in copy.rglob('*')
        if path.is_file() and path.name != GOLDEN
    }
    golden = read_golden(copy)
    old = (copy / GOLDEN).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr('os.replace', lambda *_: (_ for _ in ()).throw(OSError(28, 'full')))
        with pytest.raises(UserError, match='not enough disk space'):
            write_golden(copy, replace(golden, instruction='stop'))
    assert (copy / GOLDEN).read_bytes() == old
    write_golden(copy, replace(golden, instruction='stop'))
    assert read_golden(copy).instruction == 'stop'
    assert {
        path: path.read_bytes()
        for path in copy.rglob('*')
        if path.is_file() and path.name != GOLDEN
    } == others


def test_the_policy_that_ships_has_them():
    """builtin:demo: 224 x 224 as its takes were, drawn in the arena."""
    assert read_spec('builtin:demo').data['camera_sizes'] == [[224, 224]]
    golden = read_golden('builtin:demo')
    assert golden.frames.shape == (4, 168, 168, 3) and golden.instruction
