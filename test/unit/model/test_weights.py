"""The weights of a backbone: read once, hashed, remembered, and found again."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Kosmos2Model

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import sha256
from mobile_vla_ros.model import backbone_files, weights
from mobile_vla_ros.model.backbone import find_backbone, load_backbone
from mobile_vla_ros.model.backbone_check import image_tokens
from mobile_vla_ros.model.backbone_files import weights_hash
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.model.policy_spec import BackboneRef, read_spec
from mobile_vla_ros.runtime.policy import read_ahead

WEIGHTS = 'model.safetensors'


@pytest.fixture
def folder(small_backbone, tmp_path):
    """A copy of a small Kosmos-2 that no other test has the weights of."""
    copy = Path(shutil.copytree(small_backbone, tmp_path / 'there' / 'backbone'))
    tensors = load_file(copy / WEIGHTS)
    query = tensors['image_to_text_projection.latent_query']
    query += int.from_bytes(os.urandom(4), 'little') / 2**40
    save_file(tensors, copy / WEIGHTS, metadata={'format': 'pt'})
    return copy


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """What is remembered, for this test alone."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'mobile_vla_ros'


@pytest.mark.parametrize('block', [1 << 24, 96], ids=['whole tensors', 'small blocks'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_the_network_is_that_of_transformers(folder, monkeypatch, dtype, block):
    """Every tensor and buffer, and what it computes, to the last bit."""
    monkeypatch.setattr(weights, 'BLOCK_BYTES', block)
    found = load_backbone(str(folder), dtype=dtype)
    theirs = Kosmos2Model.from_pretrained(folder, dtype=dtype)
    for parts in ('named_parameters', 'named_buffers'):
        ours = dict(getattr(found.model, parts)())
        for name, value in getattr(theirs, parts)():
            assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name
    assert not found.model.training and found.sha256 == sha256(folder / WEIGHTS)
    theirs.image_to_text_projection.x_attn.is_causal = False
    pixels = torch.randn(1, 3, *[theirs.config.vision_config.image_size] * 2)
    with torch.no_grad():
        assert torch.equal(image_tokens(found.model, pixels), image_tokens(theirs, pixels))


def test_a_hash_is_remembered_until_a_file_changes(folder, monkeypatch):
    """Also when the change keeps size and modification time."""
    path = folder / WEIGHTS
    monkeypatch.setattr(backbone_files, 'REMEMBERED_BYTES', 0)
    first = weights_hash([path])
    with monkeypatch.context() as patched:
        patched.setattr(backbone_files, 'sha256', None)
        assert weights_hash([path]) == first
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    time.sleep(0.01)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights_hash([path]) == sha256(path) != first


def test_where_nothing_can_be_remembered_a_process_hashes_once(folder, monkeypatch, tmp_path):
    """As for a user without a home: what loads a backbone does not hash it again."""
    monkeypatch.setattr(backbone_files, 'REMEMBERED_BYTES', 0)
    (tmp_path / 'cache').write_text('')
    first = weights_hash([folder / WEIGHTS])
    monkeypatch.setattr(backbone_files, 'sha256', None)
    assert load_backbone(str(folder)).sha256 == first == sha256(folder / WEIGHTS)


def test_who_ends_a_load_does_not_wait_for_the_hash(folder, monkeypatch):
    """Ctrl-C while the weights are read, whose hash would take seconds more."""
    ended, hashed = threading.Event(), threading.Event()
    monkeypatch.setattr(weights, 'weights_hash', lambda _: ended.wait(60) and hashed.set())

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, 'read_tensor', interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_backbone(str(folder))
    assert not hashed.is_set()
    ended.set()
    assert hashed.wait(60)


@pytest.fixture
def policy(small_run, folder, tmp_path):
    """A bundle on the copied backbone, by its hashes alone."""
    from dataclasses import replace

    from mobile_vla_ros.model.bundle import rewrite_spec

    copy = Path(shutil.copytree(small_run / 'best', tmp_path / 'elsewhere' / 'policy'))
    spec = read_spec(copy)
    own = BackboneRef(f'sha256:{sha256(folder / WEIGHTS)}', None, sha256(folder / WEIGHTS))
    rewrite_spec(copy, replace(spec, backbone=replace(own, files=spec.backbone.files)))
    return copy


def test_a_backbone_that_is_not_here_is_asked_for_by_its_hash(policy, folder, tmp_path):
    """And taken from wherever it is given; another one is refused."""
    with pytest.raises(UserError, match=r'backbone:=FOLDER') as caught:
        load_bundle(policy)
    assert sha256(folder / WEIGHTS) in str(caught.value)
    assert load_bundle(policy, backbone=str(folder)).spec.backbone.id.startswith('sha256:')
    with pytest.raises(UserError, match='other weights'):
        load_bundle(policy, backbone='builtin:tiny')


def test_what_ships_is_not_searched_for(monkeypatch, cache):
    """Its folder is known; the tiny backbone lies beside the shipped policy all the same."""
    monkeypatch.setattr('mobile_vla_ros.model.backbone._is_backbone', None)
    load_bundle('builtin:demo')
    assert not cache.exists()


def test_it_is_found_beside_the_policy(policy, folder):
    """Under any name; another backbone there is passed over."""
    beside = policy.parent / 'kosmos'
    shutil.copytree(folder, beside)
    shutil.copytree(folder, policy.parent / 'a backbone')
    (policy.parent / 'a backbone' / 'tokenizer.json').write_text('{}')
    assert find_backbone(read_spec(policy).backbone, policy) == (str(beside), None)
    load_bundle(policy)


def test_it_is_found_where_it_was_loaded_from_before(policy, folder):
    """So a policy drives on the machine that trained it, without a flag."""
    load_backbone(str(folder))
    load_bundle(policy)
    moved = folder.rename(folder.with_name('moved'))
    with pytest.raises(UserError, match='not on this machine'):
        load_bundle(policy)
    load_backbone(str(moved))
    load_bundle(policy)


def test_it_is_found_in_the_hub_s_cache(policy, folder, tmp_path, monkeypatch):
    """Where the same weights are the known Kosmos-2."""
    commit = 'e' * 40
    snapshot = tmp_path / 'hub' / 'models--microsoft--kosmos-2-patch14-224' / 'snapshots' / commit
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text(commit)
    monkeypatch.setattr(
        'mobile_vla_ros.model.backbone_files.snapshot_download', in_cache(tmp_path / 'hub')
    )
    assert find_backbone(read_spec(policy).backbone, policy) == (str(snapshot), None)
    load_bundle(policy)


def in_cache(hub):
    """Return huggingface_hub's own function for another cache."""
    from functools import partial

    from huggingface_hub import snapshot_download

    return partial(snapshot_download, cache_dir=hub)


def test_what_a_policy_needs_is_read_ahead(policy, folder, tmp_path, monkeypatch):
    """Where a load found it before; an unknown place or too little memory is the load's affair."""
    read = []
    monkeypatch.setattr('mobile_vla_ros.runtime.policy._read_once', read.append)
    read_ahead(str(policy)).join()
    assert read == []
    load_bundle(policy, backbone=str(folder))
    read_ahead(str(policy)).join()
    read_ahead('builtin:demo', str(folder)).join()
    read_ahead(str(tmp_path / 'nothing')).join()
    assert read == [[folder / WEIGHTS]] * 2


def test_a_hub_that_does_not_answer_is_given_up(tmp_path):
    """It accepts the connection and is silent, as a firewall can be; found in the cache first."""
    with contextlib.closing(socket.create_server(('127.0.0.1', 0))) as silent:
        started = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                '-c',
                'from mobile_vla_ros.model import backbone, backbone_files\n'
                'backbone_files.HUB_TIMEOUT_S = 1.0\n'
                'backbone.load_backbone("somebody/kosmos")',
            ],
            env={
                **os.environ,
                'HF_HUB_CACHE': str(tmp_path / 'hub'),
                'HF_ENDPOINT': f'http://127.0.0.1:{silent.getsockname()[1]}',
                'HF_HUB_OFFLINE': '0',
                'no_proxy': '*',
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert 'cannot be loaded' in done.stderr and 'hf download somebody/kosmos' in done.stderr
    assert time.monotonic() - started < 60


def test_a_text_file_is_a_policy_only_where_it_names_a_folder(tmp_path):
    """As best on a disk without links; nothing else in a file leads anywhere."""
    (tmp_path / 'there').mkdir()
    for content, folder in (('there\n', 'there'), ('', ''), ('gone', ''), ('a' * 3000, '')):
        (tmp_path / 'best').write_text(content)
        expected = tmp_path / (folder or 'best')
        assert bundle_folder(tmp_path / 'best') == expected
        with pytest.raises(UserError):
            read_spec(tmp_path / 'best')


def test_a_path_is_never_asked_of_the_hub(tmp_path, monkeypatch):
    """It has the form of a hub id, but its folder is here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'models').mkdir()
    with pytest.raises(UserError, match='unknown backbone'):
        load_backbone('models/kosmos')


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_adapters_are_merged_as_peft_merges_them(small_run, small_backbone, dtype):
    """To the last bit in every layer."""

    def network(**more):
        loaded = load_bundle(small_run / 'best', dtype=dtype, backbone=small_backbone, **more)
        return loaded.network.backbone

    ours, theirs = network().state_dict(), network(merge=False).merge_and_unload().state_dict()
    plain = load_backbone(small_backbone, dtype=dtype).model.state_dict()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    assert any(not torch.equal(ours[name], value) for name, value in plain.items())
