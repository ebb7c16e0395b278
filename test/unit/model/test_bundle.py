"""The policy bundle: whole or absent, unchanged by saving, refused when it does not fit."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from changed_policies import edit_json
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model import bundle
from mobile_vla_ros.model.bundle import load_bundle, rewrite_spec, save_bundle
from mobile_vla_ros.model.policy_spec import SCHEMA_VERSION, read_spec
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.types import Frame
from small_backbone import make_small_backbone

BUNDLES = Path(__file__).resolve().parents[2] / 'helpers' / 'bundles'


def frames(spec, seed=0):
    """A window of random frames at the policy's rate."""
    rng = np.random.default_rng(seed)
    return [
        Frame(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), i * 100_000_000, i * 100_000_000)
        for i in range(spec.window)
    ]


def test_a_bundle_holds_everything_driving_needs(small_run):
    """Window, chunk, rate, axes and scales are in the bundle, with metrics and baselines."""
    spec = read_spec(small_run / 'best')
    assert (spec.rate_hz, spec.window, spec.chunk) == (10.0, 4, 10)
    assert spec.actions.axes == ('linear_x', 'linear_y')
    assert all(0 < scale <= 1 for scale in spec.actions.scale)
    assert len(spec.data['train_episodes']) + len(spec.data['val_episodes']) == 6
    assert {
        'zero',
        'mean_action',
        'mean_per_step',
        'mean_per_position_and_step',
        'repeat_last',
    } == set(spec.metrics['baselines'])
    assert spec.metrics['policy']['linear_y']['mae'] > 0


def test_merged_adapters_give_the_same_actions(small_run):
    """Merged for driving, separate in training."""
    folder = small_run / 'best'
    window = frames(read_spec(folder))
    merged = VlaPolicy.load(folder).infer(window, 'go to the red box')
    apart = VlaPolicy(load_bundle(folder, merge=False)).infer(window, 'go to the red box')
    np.testing.assert_allclose(merged.twists, apart.twists, atol=1e-5)


def test_saving_again_gives_the_same_policy(small_run, tmp_path):
    """Tensor by tensor; the folder is open to whom the umask lets read it."""
    loaded = load_bundle(small_run / 'best', merge=False)
    before = os.umask(0o027)
    try:
        folder = save_bundle(tmp_path / 'again', loaded.network, loaded.spec)
    finally:
        os.umask(before)
    again = load_bundle(folder, merge=False)
    assert again.spec == loaded.spec
    assert folder.stat().st_mode & 0o777 == 0o750
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


def test_nothing_is_overwritten_and_nothing_partial_is_left(small_run, tmp_path, monkeypatch):
    """An existing folder is refused, and a failure while saving leaves nothing."""
    loaded = load_bundle(small_run / 'best', merge=False)
    (tmp_path / 'there').mkdir()
    with pytest.raises(UserError, match='exists'):
        save_bundle(tmp_path / 'there', loaded.network, loaded.spec)
    monkeypatch.setattr(bundle, 'save_file', lambda *_: (_ for _ in ()).throw(OSError('full')))
    with pytest.raises(OSError, match='full'):
        save_bundle(tmp_path / 'new', loaded.network, loaded.spec)
    assert [path.name for path in tmp_path.iterdir()] == ['there']


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'format': 'other'}, 'not a policy of this package'),
        ({'schema_version': 99}, 'another schema version; got 99, expected 1|got 99; expected 1'),
        ({'actions': {'axes': ['linear_q', 'linear_y'], 'scale': [1, 1]}}, 'linear_q'),
        (
            {'image': {'size': 'big', 'mean': [0, 0, 0], 'std': [1, 1, 1]}},
            'does not fit its schema',
        ),
    ],
)
def test_a_foreign_bundle_is_refused(policy_copy, changes, expected):
    """The message has the values that disagree."""
    edit_json(policy_copy / 'policy.json', **changes)
    with pytest.raises(UserError, match=expected):
        read_spec(policy_copy)


def test_a_missing_bundle_or_part_is_named(tmp_path, policy_copy):
    """No folder, an empty folder, a folder without its head."""
    with pytest.raises(UserError, match='no such folder'):
        read_spec(tmp_path / 'nothing')
    with pytest.raises(UserError, match=r'policy\.json'):
        read_spec(tmp_path)
    (policy_copy / 'head.safetensors').unlink()
    with pytest.raises(UserError, match=r'no head\.safetensors'):
        load_bundle(policy_copy)


def test_a_backbone_with_other_weights_is_refused(policy_copy, tmp_path):
    """Other weights give other features: the hash must match."""
    other = tmp_path / 'other'
    make_small_backbone(other, seed=9)
    spec = read_spec(policy_copy)
    with pytest.raises(UserError, match='other weights') as caught:
        load_bundle(policy_copy, backbone=str(other))
    assert spec.backbone.sha256[:12] in str(caught.value)


def test_a_head_of_another_size_is_refused(policy_copy):
    """policy.json and the tensors must agree."""
    spec = read_spec(policy_copy)
    edit_json(policy_copy / 'policy.json', head={**spec.head.__dict__, 'hidden': 64})
    with pytest.raises(UserError, match='does not fit'):
        load_bundle(policy_copy)


def test_a_missing_gpu_is_reported(small_run):
    """With a UserError and a remedy."""
    if torch.cuda.is_available():
        pytest.skip('there is a GPU here')
    with pytest.raises(UserError, match='--device cpu'):
        load_bundle(small_run / 'best', device='cuda')


def test_a_bundle_contains_no_path_of_the_machine_that_made_it(small_run):
    """It names its backbone by hub id or hash alone, so that it can be published."""
    spec = read_spec(small_run / 'best')
    assert spec.backbone.id == f'sha256:{spec.backbone.sha256}' and spec.backbone.revision is None
    config = json.loads((small_run / 'best' / 'adapter' / 'adapter_config.json').read_text())
    assert config['base_model_name_or_path'] is None


def test_a_bundle_of_version_0_1_is_not_a_control(policy_copy):
    """Its policy.json has no `blank`."""
    manifest = json.loads((policy_copy / 'policy.json').read_text())
    del manifest['blank']
    (policy_copy / 'policy.json').write_text(json.dumps(manifest))
    assert read_spec(policy_copy).blank == ''


def test_an_unknown_builtin_policy_is_refused_with_the_known_ones():
    """The message names them."""
    with pytest.raises(UserError, match=r"builtin:demo.*mean 'builtin:demo'"):
        read_spec('builtin:dem')


def drawn(number):
    """An image that every machine computes alike: the input of the kept bundles."""
    y, x, colour = np.mgrid[:48, :64, :3]
    return ((7 * y + 13 * x + 29 * colour + 41 * number + x * y) % 256).astype(np.uint8)


@pytest.mark.parametrize('version', range(1, SCHEMA_VERSION + 1))
def test_a_bundle_of_every_released_schema_version_drives_as_before(version, tmp_path):
    """The same twists within 0.1 mm/s."""
    with zipfile.ZipFile(BUNDLES / f'schema_{version}' / 'bundle.zip') as archive:
        archive.extractall(tmp_path)
    manifest = json.loads((tmp_path / 'policy' / 'policy.json').read_text())
    assert manifest['schema_version'] == version
    edit_json(
        tmp_path / 'policy' / 'policy.json',
        backbone={**manifest['backbone'], 'id': str(tmp_path / 'backbone')},
    )
    policy = VlaPolicy.load(tmp_path / 'policy')
    window = [Frame(drawn(i), i * 100_000_000, i * 100_000_000) for i in range(4)]
    for text, twists in json.loads((tmp_path / 'expected.json').read_text()).items():
        np.testing.assert_allclose(policy.infer(window, text).twists, twists, atol=1e-4)


def test_later_metrics_are_written_into_the_bundle(policy_copy):
    """rewrite_spec replaces policy.json and nothing else."""
    before = {path.name: path.read_bytes() for path in policy_copy.rglob('*.safetensors')}
    names = sorted(path.name for path in policy_copy.iterdir())
    spec = replace(read_spec(policy_copy), metrics={'policy': {'loss': 0.5}})
    rewrite_spec(policy_copy, spec)
    assert read_spec(policy_copy) == spec
    assert sorted(path.name for path in policy_copy.iterdir()) == names
    assert {path.name: path.read_bytes() for path in policy_copy.rglob('*.safetensors')} == before
    with pytest.raises(UserError, match='no such folder'):
        rewrite_spec(policy_copy / 'nothing', spec)


def test_a_spec_is_read_without_torch():
    """Commands that only print or compare a policy's settings start at once."""
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys\n'
            'from mobile_vla_ros.model.policy_spec import read_spec\n'
            'read_spec("builtin:demo")\n'
            'sys.exit("torch" in sys.modules)',
        ],
        check=False,
    )
    assert done.returncode == 0
