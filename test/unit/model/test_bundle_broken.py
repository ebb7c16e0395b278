"""Bundles that are incomplete, truncated, edited or do not fit: UserError, never a traceback."""

import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bundle_processes import AFTER_S
from bundle_processes import __file__ as PROCESSES
from changed_policies import edit_json
from damaged_files import cut_in_half
from forked import run_forked
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import LORA_TARGETS
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.model.policy_spec import PolicySpec, read_spec
from private_mounts import on_small_disk

ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(Path(PROCESSES).parents[2])}
FULL_MB = 3  # the small bundle has more than 5


def change(path, function):
    """Rewrite the tensors of a safetensors file."""
    tensors = load_file(path)
    function(tensors)
    save_file(tensors, path)


def test_a_kill_while_saving_leaves_a_whole_policy_or_none(small_run, tmp_path):
    """Killed at every step on the disk, and at times in between."""
    done = run_forked(PROCESSES, 'kill', small_run / 'best', tmp_path)
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout)
    steps = len(statuses) - len(AFTER_S)
    assert steps > 8 and set(statuses[: steps - 1]) == {9} and statuses[steps - 1] == 0
    assert 14 in statuses
    torn = 0
    for folder in tmp_path.iterdir():
        if not folder.name.startswith('.'):
            assert load_bundle(folder).spec == read_spec(small_run / 'best')
            continue
        try:  # a hidden folder; if it can be read, it must be whole
            load_bundle(folder)
        except UserError:
            torn += 1
    assert torn > 3


def test_a_full_disk_is_reported_with_sizes_and_leaves_nothing(small_run, tmp_path):
    """The message has the space needed, the free space and the folder."""
    command = [sys.executable, PROCESSES, 'full', small_run / 'best', tmp_path]
    on_disk = on_small_disk(tmp_path, FULL_MB, *command)
    if on_disk is None:
        pytest.skip('private mounts (unshare -m) are not permitted to this user')
    done = subprocess.run(
        on_disk,
        capture_output=True,
        text=True,
        timeout=240,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 'not enough disk space' in result['message'] and str(tmp_path) in result['message']
    assert f'{FULL_MB * 2**20 / 1e6:.1f} MB free' in result['message']
    size = sum(
        file.stat().st_size for name in (HEAD, ADAPTER) for file in [small_run / 'best' / name]
    )
    assert f'expected {size / 1e6:.1f} MB' in result['message']
    assert result['left'] == []


def test_all_mismatches_are_reported_together(policy_copy, small_backbone):
    """Backbone, features, image, head, adapters: one message has both values of each."""
    spec = read_spec(policy_copy)
    edit_json(
        policy_copy / 'policy.json',
        backbone__sha256='0' * 64,
        head__features=48,
        head__hidden=64,
        image__size=112,
    )
    edit_json(policy_copy / 'adapter' / 'adapter_config.json', r=7)
    with pytest.raises(UserError) as caught:
        load_bundle(policy_copy, backbone=small_backbone)
    for part in (
        '000000000000…',
        spec.backbone.sha256[:12],
        'head.features is 48, and the backbone has 32',
        'image.size is 112, and the backbone has 56',
        'head.lstm.weight_hh_l0 is 128 x 32, not 256 x 64',
        'is 4 x 32, not 7 x 32',
    ):
        assert part in str(caught.value), part


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (
            {'chunk': 9, 'head__motion_dims': 1},
            ['chunk is 9 and head.chunk 10', 'head.motion_dims is 1 for 2 axes'],
        ),
        (
            {'actions__axes': ['linear_x', 'linear_q'], 'chunk': 11},
            ["linear_q'", "mean 'linear_", 'chunk is 11'],
        ),
        ({'actions__scale': [1.0]}, ['1 scales', '2, for linear_x, linear_y']),
        (
            {'window': 'four', 'rate_hz': None, 'image__mean': [0, 0]},
            [
                "window is 'four', not a whole number from 1 to 64",
                'rate_hz is None',
                'image.mean is [0, 0], not 3 of numbers',
            ],
        ),
        ({'instruction_template': '{instruction} {place}'}, ['instruction_template']),
        ({'data__train_episodes': 3, 'data__mean_action': [0.1]}, ['data.train_episodes is 3']),
        ({'data__mean_action': [0.1]}, ['1 numbers for 2 axes']),
        ({'schema_version': 0}, ['got 0', 'expected 1']),
        ({'schema_version': True}, ['got True']),
    ],
)
def test_an_inconsistent_policy_json_is_refused(policy_copy, changes, expected):
    """With both values of each mismatch, before any weight is read."""
    edit_json(policy_copy / 'policy.json', **changes)
    with pytest.raises(UserError) as caught:
        read_spec(policy_copy)
    assert all(part in str(caught.value) for part in expected), caught.value


HEAD, ADAPTER = 'head.safetensors', 'adapter/adapter_model.safetensors'
CONFIG = 'adapter/adapter_config.json'
LAYER = 'base_model.model.text_model.model.layers.0.self_attn.q_proj.lora_A.weight'


@pytest.mark.parametrize(
    ('name', 'break_it', 'expected'),
    [
        (HEAD, cut_in_half, 'head.safetensors is broken'),
        (ADAPTER, cut_in_half, 'adapter_model.safetensors is broken'),
        (HEAD, lambda path: path.write_bytes(b''), 'head.safetensors is broken'),
        (CONFIG, cut_in_half, 'adapter_config.json is not JSON'),
        (CONFIG, lambda path: path.write_text('[]'), 'holds a list, not an object'),
        (CONFIG, lambda path: edit_json(path, r='four'), "r is 'four', not a whole number"),
        (
            CONFIG,
            lambda path: edit_json(path, target_modules='nothing'),
            "target_modules is 'nothing'",
        ),
        (CONFIG, lambda path: edit_json(path, use_dora=True), 'use_dora is True'),
        (
            CONFIG,
            lambda path: edit_json(path, init_lora_weights='pissa'),
            "init_lora_weights is 'pissa'",
        ),
        (
            CONFIG,
            lambda path: edit_json(path, target_modules=LORA_TARGETS['text']),
            'a tensor base_model',
        ),
        (
            HEAD,
            lambda path: change(path, lambda all: all['action_token'].fill_(torch.nan)),
            'action_token contains NaN or inf',
        ),
        (
            HEAD,
            lambda path: change(path, lambda all: all.pop('head.lstm.bias_ih_l0')),
            'no tensor head.lstm.bias_ih_l0',
        ),
        (
            ADAPTER,
            lambda path: change(path, lambda all: all[LAYER].fill_(torch.inf)),
            f'{LAYER} contains NaN or inf',
        ),
        ('policy.json', lambda path: path.write_bytes(b'\xff\xfe'), 'policy.json cannot be read'),
        ('policy.json', lambda path: path.write_text('[' * 100_000), 'policy.json is not JSON'),
        ('policy.json', cut_in_half, 'policy.json is not JSON'),
    ],
)
def test_a_broken_part_is_named(policy_copy, name, break_it, expected):
    """Truncated, empty, foreign or NaN: the message names file and tensor."""
    break_it(policy_copy / name)
    with pytest.raises(UserError) as caught:
        load_bundle(policy_copy)
    assert expected in str(caught.value), caught.value


JUNK = (
    None,
    True,
    -1,
    0,
    3,
    10**30,
    0.5,
    float('nan'),
    float('inf'),
    '',
    'x',
    '{',
    '\0',
    '\ud800',
    [],
    [1],
    ['linear_x'],
    [[]],
    {},
    {'a': 1},
    'linear_x',
    '{instruction:>9999999}',
)


def scramble(content, rng: random.Random):
    """Replace, remove or add something at a random place."""
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
            place = place[key]
            continue
        what = rng.randrange(8)
        if what == 0:
            del place[key]
        elif what == 1 and isinstance(place, dict):
            place['another'] = rng.choice(JUNK)
        else:
            place[key] = rng.choice(JUNK)
        return


def test_random_edits_of_policy_json_give_a_policy_or_a_user_error(policy_copy):
    """A thousand edits, some of them harmless, raise nothing but UserError."""
    rng = random.Random(0)
    manifest = policy_copy / 'policy.json'
    whole = json.loads(manifest.read_text())
    whole['metrics'] = {}  # free-form data would absorb most of the edits
    own, refused, asked = read_spec(policy_copy), 0, 0
    for _ in range(1000):
        content = json.loads(json.dumps(whole))
        for _ in range(rng.randint(1, 3)):
            scramble(content, rng)
        try:
            spec = PolicySpec.from_json(json.dumps(content), manifest)
        except UserError:
            refused += 1
            continue
        assert isinstance(spec.prompt('go'), str)
        if asked < 20 and (spec.head, spec.image, spec.backbone, spec.actions) != (
            own.head,
            own.image,
            own.backbone,
            own.actions,
        ):
            asked += 1
            manifest.write_text(json.dumps(content))
            with contextlib.suppress(UserError):
                load_bundle(policy_copy)
    assert 500 < refused < 1000 and asked > 3
