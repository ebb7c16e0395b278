"""The network: the layout of its sequence, and what its output depends on."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from mobile_vla_ros.bench.random_weights import shapes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import sha256
from mobile_vla_ros.model.backbone import (
    LoraSettings,
    load_backbone,
    tokenize,
)
from mobile_vla_ros.model.bundle import load_bundle, save_bundle
from mobile_vla_ros.model.golden import golden_actions
from mobile_vla_ros.model.network import ActionHead, build_network
from mobile_vla_ros.model.policy_spec import HeadSettings, PolicySpec, split_template
from mobile_vla_ros.training.config import ModelConfig
from mobile_vla_ros.types import ActionSpec

CONFIG = Path(__file__).resolve().parents[3] / 'config'


@pytest.fixture
def network(small_backbone):
    """A small network in evaluation mode, and its tokenizer."""
    torch.manual_seed(1)
    backbone = load_backbone(small_backbone)
    built = build_network(
        backbone, LoraSettings(r=4, dropout=0.0), motion_dims=2, chunk=5, hidden=16, layers=1
    )
    return built.eval(), backbone.tokenizer


def tokens_of(tokenizer, *sentences):
    """Return the tokens of sentences."""
    return tokenize(tokenizer, list(sentences))


def test_the_reference_recipe_has_the_published_parameter_counts():
    """config/train_seed.yaml builds a network of the sizes that the reference run reported."""
    values = yaml.safe_load((CONFIG / 'train_seed.yaml').read_text())
    model = ModelConfig(
        **{
            name: value
            for name, value in values.items()
            if name in ModelConfig.__dataclass_fields__
        }
    )
    with torch.device('meta'):
        built = build_network(
            shapes(torch.float32),
            LoraSettings(model.lora_r, model.lora_alpha, model.lora_dropout, model.lora_scope),
            motion_dims=model.motion_dims,
            chunk=values['chunk'],
            hidden=model.head_hidden,
            layers=model.head_layers,
        )
    counts = built.parameter_counts()
    assert round(counts['lora'] / 1e6, 2) == 43.09
    assert round(counts['head'] / 1e6, 2) == 13.93
    assert round(counts['trainable'] / 1e6, 1) == 57.0
    assert sum(p.numel() for p in built.parameters() if p.requires_grad) == counts['trainable']


def test_image_tokens_replace_their_placeholders(network):
    """In the reference run image tokens overwrote the text (fault 2); here they do not."""
    net, tokenizer = network
    ids, lengths = tokens_of(tokenizer, 'go to the red box', 'go to')
    tokens = net.kosmos.config.latent_query_num
    first, positions = net.embed(torch.randn(2, tokens, 32), ids, lengths)
    images = torch.randn(2, tokens, 32)
    second, _ = net.embed(images, ids, lengths)
    table = net.kosmos.get_input_embeddings().weight
    assert torch.equal(second[:, 0], table[0].expand(2, -1))
    assert torch.equal(second[:, 1 : 1 + tokens], images)
    assert torch.equal(second[0, 1 + tokens : 1 + tokens + 5], table[ids[0]])
    assert torch.equal(first[:, 1 + tokens :], second[:, 1 + tokens :])
    assert positions.tolist() == [1 + tokens + 5, 1 + tokens + 2]
    for row, position in enumerate(positions):
        assert torch.equal(second[row, position], net.action_token)


def test_text_of_the_prompt_may_stand_before_the_image(small_backbone, tmp_path):
    """In the bundle's template: what was trained is what drives."""
    backbone = load_backbone(small_backbone)
    before, after = split_template('blue {image} box {instruction}')
    assert (before, after) == ('blue ', ' box {instruction}')
    net = build_network(
        backbone,
        LoraSettings(r=4),
        motion_dims=2,
        chunk=5,
        hidden=16,
        layers=1,
        before_image=before,
    ).eval()
    ids, lengths = tokens_of(backbone.tokenizer, after.format(instruction='go'))
    images = torch.randn(1, net.kosmos.config.latent_query_num, 32)
    sequence, positions = net.embed(images, ids, lengths)
    table = net.kosmos.get_input_embeddings().weight
    words = backbone.tokenizer.get_vocab()
    expected = [
        *table[[words['<s>'], words['blue']]],
        *images[0],
        *table[[words['box'], words['go']]],
        net.action_token,
    ]
    assert torch.equal(sequence[0], torch.stack(expected))
    assert positions.tolist() == [len(expected) - 1]

    spec = PolicySpec(
        backbone.ref,
        net.head.settings,
        backbone.image,
        ActionSpec(),
        rate_hz=10.0,
        window=2,
        chunk=5,
        instruction_template='blue {image} box {instruction}',
    )
    pixels = torch.randn(2, 3, 56, 56)
    trained = golden_actions(net, backbone.tokenizer, spec, pixels, 'go')
    loaded = load_bundle(save_bundle(tmp_path / 'policy', net, spec), merge=False)
    driven = golden_actions(loaded.network, loaded.tokenizer, loaded.spec, pixels, 'go')
    assert (driven == trained).all()
    plain = replace(spec, instruction_template='{instruction}')
    other = load_bundle(save_bundle(tmp_path / 'plain', net, plain), merge=False)
    assert (golden_actions(other.network, other.tokenizer, plain, pixels, 'go') != trained).any()


@pytest.mark.parametrize(
    'template',
    [
        'go',
        '{instruction} {place}',
        '{instruction} {image}',
        '{image}{image}{instruction}',
        '{{image}}{instruction}',
        '{instruction}' + 'x' * 1000,
    ],
)
def test_a_prompt_with_other_places_is_refused(template):
    """Before anything is loaded."""
    with pytest.raises(UserError, match=r'instruction_template is .* one \{instruction\}'):
        ModelConfig(instruction_template=template)


def test_the_head_is_the_published_one():
    """An LSTM and MLPs of plain torch modules with equal weights, stepped frame by frame."""
    torch.manual_seed(0)
    head = ActionHead(HeadSettings(2048, motion_dims=6)).eval()

    def mlp(outputs: int, *last: nn.Module) -> nn.Sequential:
        sizes = (512, 1024, 512, 256)
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(256, outputs), *last)

    published = nn.ModuleDict(
        {
            'rnn': nn.LSTM(2048, 512, 4, batch_first=True),
            'actions': mlp(10 * 6, nn.Tanh()),
            'gripper': mlp(10),
        }
    ).eval()
    assert round(sum(p.numel() for p in published.parameters()) / 1e6, 2) == 13.93
    with torch.no_grad():
        for own, theirs in zip(head.parameters(), published.parameters(), strict=True):
            theirs.copy_(own)
        features, memory = torch.randn(3, 4, 2048), None
        motion, gripper = head(features)
        for frame in range(4):
            state, memory = published['rnn'](features[:, frame : frame + 1], memory)
            expected = published['actions'](state[:, 0]).view(3, 10, 6)
            torch.testing.assert_close(motion[:, frame], expected, rtol=0, atol=1e-5)
            torch.testing.assert_close(
                gripper[:, frame], published['gripper'](state[:, 0]), rtol=0, atol=1e-5
            )
    assert motion.abs().mean() > 1e-3


def test_image_and_instruction_both_change_the_output(network):
    """In the reference run left and right gave the same output to six decimals (fault 2)."""
    net, tokenizer = network
    ids, lengths = tokens_of(tokenizer, 'go to the red box', 'go to the blue box')
    pixels = torch.randn(2, 3, 56, 56)
    one = net.encode(pixels[:1], ids[:1], lengths[:1])
    other_image = net.encode(pixels[1:], ids[:1], lengths[:1])
    other_text = net.encode(pixels[:1], ids[1:], lengths[1:])
    assert (one - other_image).abs().max() > 1e-3
    assert (one - other_text).abs().max() > 1e-3


def test_a_frame_s_feature_does_not_depend_on_its_batch(network):
    """Shorter instructions are padded in a batch, which must not change the feature."""
    net, tokenizer = network
    pixels = torch.randn(2, 3, 56, 56)
    together = net.encode(pixels, *tokens_of(tokenizer, 'go to the red box', 'go'))
    alone = net.encode(pixels[1:], *tokens_of(tokenizer, 'go'))
    torch.testing.assert_close(together[1:], alone)


def test_windows_of_features_equal_window_by_window(network):
    """A frame is encoded once however many windows contain it; the result is the same."""
    net, tokenizer = network
    ids, lengths = tokens_of(tokenizer, 'go to the red box', 'go to the blue ball')
    pixels = torch.randn(6 + 5, 3, 56, 56)
    windows = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4], [2, 2, 3, 5], [6, 7, 8, 9], [7, 8, 9, 10]])
    motion, gripper = net(pixels, ids, lengths, [6, 5], windows)
    assert motion.shape == (3 + 2, 4, 5, 2)
    assert gripper.shape == (3 + 2, 4, 5)
    for number, (run, rows) in enumerate(zip([0, 0, 0, 1, 1], windows, strict=True)):
        alone, _ = net(
            pixels[rows], ids[run : run + 1], lengths[run : run + 1], [4], torch.arange(4)[None]
        )
        torch.testing.assert_close(motion[number : number + 1], alone)


def test_only_adapters_token_and_head_are_trained(network):
    """The backbone itself stays frozen, and every trained parameter gets a gradient."""
    net, tokenizer = network
    net.train()
    motion, gripper = net(
        torch.randn(4, 3, 56, 56),
        *tokens_of(tokenizer, 'go to the red box'),
        [4],
        torch.arange(4)[None],
    )
    (motion.sum() + gripper.sum()).backward()
    for name, parameter in net.named_parameters():
        trained = 'lora_' in name or not name.startswith('backbone.')
        assert parameter.requires_grad == trained, name
        # LoRA's B starts at zero, so A's first gradient exists but is zero.
        assert (parameter.grad is not None) == trained, name


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('builtin:tyni', "Did you mean 'builtin:tiny'"),
        ('/no/such/folder', 'unknown backbone'),
        ('tiny', 'unknown backbone'),
    ],
)
def test_an_unknown_backbone_is_named(name, expected):
    """With a UserError that has the name and the known ones."""
    with pytest.raises(UserError, match=expected) as caught:
        load_backbone(name)
    assert name in str(caught.value)


def test_an_unreachable_hub_is_reported(monkeypatch):
    """The message has the command that downloads the weights on another machine."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(UserError, match='cannot be loaded') as caught:
        load_backbone('microsoft/no-such-kosmos', offline=True, revision='abc123')
    assert (
        'hf download microsoft/no-such-kosmos --revision abc123 --exclude "*.bin" '
        '--local-dir no-such-kosmos; '
        'then give that folder: --backbone no-such-kosmos'
    ) in str(caught.value)


def test_the_hub_s_commit_is_known_also_for_a_branch(small_backbone, tmp_path):
    """A downloaded backbone loads offline, and a bundle pins its commit."""
    commit = '0123456789abcdef0123456789abcdef01234567'
    folder = tmp_path / 'hub' / 'models--somebody--kosmos'
    shutil.copytree(small_backbone, folder / 'snapshots' / commit)
    (folder / 'refs').mkdir()
    (folder / 'refs' / 'main').write_text(commit)
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'from mobile_vla_ros.model.backbone import load_backbone\n'
            'for revision in (None, "main"):\n'
            '    found = load_backbone("somebody/kosmos", revision=revision, offline=True)\n'
            '    print(found.revision, found.sha256)',
        ],
        env={**os.environ, 'HF_HUB_CACHE': str(tmp_path / 'hub'), 'HF_HUB_OFFLINE': '1'},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    weights = sha256(Path(small_backbone) / 'model.safetensors')
    assert done.stdout.split('\n')[:2] == [f'{commit} {weights}'] * 2


def test_a_folder_of_another_model_is_refused(tmp_path):
    """Before its weights are read."""
    (tmp_path / 'config.json').write_text('{"model_type": "clip"}')
    with pytest.raises(UserError, match='not a Kosmos-2'):
        load_backbone(str(tmp_path))


def test_the_action_token_starts_where_kosmos_locates_things():
    """At `<object>`, after which Kosmos-2 locates the named object, instead of a random vector."""
    backbone = load_backbone('builtin:tiny')
    built = build_network(backbone, LoraSettings(r=2), motion_dims=2, chunk=2, hidden=8, layers=1)
    table = backbone.model.get_input_embeddings().weight
    assert torch.equal(built.action_token, table[backbone.tokenizer.get_vocab()['<object>']])
