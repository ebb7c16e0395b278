"""A DDS domain of its own for every test that speaks ROS, on the loopback only."""

import os
import signal

import psutil
import pytest

from mobile_vla_ros.bringup.domain import held_domain
from ros_helpers import Client, Nodes

# Whoever starts the tests in the background may ignore these, and what they start would as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The vocabulary of the small backbone; Kosmos-2 has its special tokens in this order.
WORDS = (
    '<s>',
    '<pad>',
    '</s>',
    '<unk>',
    'go',
    'to',
    'the',
    'red',
    'green',
    'blue',
    'yellow',
    'purple',
    'orange',
    'box',
    'cylinder',
    'ball',
    'cone',
)


# CPU that other processes may use while a test needs a quiet machine, in cores.
MAX_BUSY_CORES = 0.5


def pytest_configure(config):
    config.addinivalue_line(
        'markers',
        'quiet_machine: measures time to within milliseconds; skipped while others use the CPU '
        '(scripts/test runs these alone, after all others)',
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip a test that needs a quiet machine on a busy one."""
    if item.get_closest_marker('quiet_machine') is None:
        return
    cores = os.cpu_count() or 1
    busy = psutil.cpu_percent(interval=1.0) / 100 * cores
    load = os.getloadavg()[0]
    if busy > MAX_BUSY_CORES:
        pytest.skip(
            f'needs a quiet machine: others use {busy:.1f} of {cores} cores (load {load:.1f})'
        )


@pytest.fixture
def ros_domain(monkeypatch):
    """Set ROS_DOMAIN_ID to an id that nobody else on this machine tests with; yield it."""
    with held_domain() as domain:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        yield domain


@pytest.fixture
def nodes(ros_domain):
    """Start node processes (``nodes.start('guard_node', params={…})``); killed afterwards."""
    started = Nodes()
    yield started
    started.close()


@pytest.fixture
def client(ros_domain):
    """A client on the test's domain: subscribe, publish, stream, call, wait_for."""
    one = Client()
    yield one
    one.close()


@pytest.fixture(scope='session')
def small_backbone(tmp_path_factory) -> str:
    """A Kosmos-2 of random weights in an ordinary transformers folder; return its path."""
    folder = tmp_path_factory.mktemp('backbone') / 'small'
    make_small_backbone(folder)
    return str(folder)


def make_small_backbone(folder, seed: int = 0):
    """Write a Kosmos-2 of two layers a tower, with tokenizer and image settings."""
    import json

    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Kosmos2Config, Kosmos2Model, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        pad_token='<pad>',
        eos_token='</s>',
        unk_token='<unk>',
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    model = Kosmos2Model(
        Kosmos2Config(
            text_config={
                'vocab_size': 32,
                'embed_dim': 32,
                'layers': 2,
                'ffn_dim': 64,
                'attention_heads': 2,
                'dropout': 0.0,
                'attention_dropout': 0.0,
                'max_position_embeddings': 64,
            },
            vision_config={
                'hidden_size': 32,
                'intermediate_size': 64,
                'num_hidden_layers': 2,
                'num_attention_heads': 2,
                'image_size': 56,
                'patch_size': 14,
            },
            latent_query_num=4,
        )
    )
    # With the library's initialisation an untrained network hardly sees its image.
    for module in model.image_to_text_projection.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=32**-0.5)
    model.save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(
        json.dumps(
            {
                'size': {'height': 56, 'width': 56},
                'image_mean': [0.48, 0.46, 0.41],
                'image_std': [0.27, 0.26, 0.28],
            }
        )
    )


@pytest.fixture(scope='session')
def episode_folder(tmp_path_factory):
    """Six takes of the expert, small pictures; return their folder."""
    from arena_episodes import write_episodes

    folder = tmp_path_factory.mktemp('takes')
    write_episodes(folder, 6, size=64)
    return folder


@pytest.fixture(scope='session')
def small_run(tmp_path_factory, small_backbone, episode_folder):
    """The folder of a training run of two epochs on the small backbone."""
    from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
    from mobile_vla_ros.training.loop import train

    out = tmp_path_factory.mktemp('run') / 'out'
    train(
        ModelConfig(backbone=small_backbone, lora_r=4, head_hidden=32, head_layers=1),
        DataConfig(data=str(episode_folder)),
        TrainConfig(
            out=str(out), epochs=2, batch_size=4, accumulate=1, device='cpu', learning_rate=1e-3
        ),
        log=lambda _: None,
    )
    return out
