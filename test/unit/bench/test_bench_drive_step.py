"""bench drive step: the same parts on a small backbone."""

import pytest
from transformers import Kosmos2Config

from mobile_vla_ros.bench.drive.step import _child, _threads
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
    found = _child('step', tmp_path)
    assert found['threads'] == _threads() == 1
    assert min(found[name] for name in ('bare_s', 'plain_window_s', 'own_window_s', 'step_s')) > 0
    assert found['frames'] == 4
    assert found['torch'] < found['held'] <= found['peak'] * 1.5
    policy = VlaPolicy.load(tmp_path / 'policy')
    assert policy.spec.head.motion_dims == 6 and read_golden(tmp_path / 'policy') is None
    numbers = sum(value.numel() for value in policy.network.kosmos.state_dict().values())
    assert 2 * numbers < found['weights'] < 2 * numbers + 4 * 20e6
