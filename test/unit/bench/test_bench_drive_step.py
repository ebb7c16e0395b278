"""bench drive step and load: the same parts on a small backbone."""

import pytest
from transformers import Kosmos2Config

from mobile_vla_ros.bench.drive import load, step
from mobile_vla_ros.bench.drive.step import _threads, child
from mobile_vla_ros.bench.drive.step_bundle import write_policy
from mobile_vla_ros.model.golden import read_golden
from mobile_vla_ros.runtime.vla_policy import VlaPolicy

SMALL = Kosmos2Config(
    text_config={
        'vocab_size': 32,
        'embed_dim': 256,
        'layers': 4,
        'ffn_dim': 1024,
        'attention_heads': 4,
        'max_position_embeddings': 128,
    },
    vision_config={
        'hidden_size': 256,
        'intermediate_size': 1024,
        'num_hidden_layers': 4,
        'num_attention_heads': 4,
        'image_size': 56,
        'patch_size': 14,
    },
    latent_query_num=4,
)


@pytest.mark.exhaustive
def test_time_and_memory_of_a_step_are_measured(tmp_path):
    """In a separate process: all figures, and the size of the network's weights."""
    write_policy(tmp_path, SMALL)
    found = child(step.__name__, 'step', tmp_path)
    assert found['threads'] == _threads() == 1
    assert min(found[name] for name in ('bare_s', 'plain_window_s', 'own_window_s', 'step_s')) > 0
    assert found['frames'] == 4
    assert 0 < found['held'] <= found['peak'] * 1.5
    policy = VlaPolicy.load(tmp_path / 'policy')
    assert policy.spec.head.motion_dims == 6 and read_golden(tmp_path / 'policy') is None
    numbers = sum(value.numel() for value in policy.network.kosmos.state_dict().values())
    assert 2 * numbers < found['weights'] < 2 * numbers + 4 * 20e6
    int8 = child(step.__name__, 'step', tmp_path, 'cpu', 'int8')
    assert int8['weights'] < found['weights'] and int8['step_s'] > 0


@pytest.mark.exhaustive
def test_loading_is_measured_beside_reading(tmp_path):
    """Also with a file in float32, which drives in bfloat16."""
    write_policy(tmp_path, SMALL)
    before = child(load.__name__, 'load', tmp_path)
    read_s, size = load._cold_read(tmp_path)
    child(load.__name__, 'write', tmp_path, 'float32')
    found = child(load.__name__, 'load', tmp_path)
    assert load._cold_read(tmp_path)[1] == pytest.approx(2 * size, rel=0.1) and read_s > 0
    assert found['weights'] == before['weights'] and found['peak'] > 0
    phases = found['phases']
    assert phases['read_model'] > 0 and phases['check_attention'] > 0
    assert sum(phases.values()) <= found['load_s']
