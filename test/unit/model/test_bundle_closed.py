"""Bundles are closed: what is loaded is hashed and in its folder, and no hub is asked for it."""

import json
import shutil
import time
from pathlib import Path

import peft
import pytest
from safetensors.torch import load_file, save_file

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import load_backbone
from mobile_vla_ros.model.builtin import KNOWN_HUB
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.model.closed_folder import inside
from mobile_vla_ros.model.golden import GOLDEN, read_golden
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.loading import load_policy
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.loop import train

HEAD, ADAPTER = 'head.safetensors', 'adapter/adapter_model.safetensors'
CONFIG = 'adapter/adapter_config.json'
WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'


@pytest.fixture
def asked(monkeypatch):
    """Refuse every name that a library would look up, and list them."""
    names = []

    def refuse(host, *_args, **_more):
        names.append(host)
        raise OSError('no network in this test')

    monkeypatch.setattr('socket.getaddrinfo', refuse)
    return names


@pytest.fixture
def backbone(small_backbone, tmp_path):
    """A copy of the small backbone, to break."""
    return Path(shutil.copytree(small_backbone, tmp_path / 'backbone'))


@pytest.fixture
def copy(small_run, backbone, tmp_path):
    """A copy of the small run's best bundle, on the copied backbone."""
    folder = Path(shutil.copytree(small_run / 'best', tmp_path / 'policy'))
    edit(folder / 'policy.json', lambda content: content['backbone'].update(id=str(backbone)))
    return folder


def edit(path, function):
    """Change the object in a JSON file."""
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def age(folder):
    """Make a bundle one that was written before files were hashed."""

    def strip(content):
        content.pop('files', None)
        content['backbone'].pop('files', None)

    edit(folder / 'policy.json', strip)


def refusal(function, *arguments, **more):
    """Return the sentence that refuses something."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **more)
    return str(caught.value)


@pytest.mark.parametrize('pattern', ['(.*.*.*.*.*.*)!', '.*q_proj', 'all-linear', ['q_proj']])
def test_adapters_are_on_the_layers_of_a_known_scope(copy, pattern):
    """A stranger's regular expression would stop the driving node while it is matched."""
    age(copy)
    edit(copy / CONFIG, lambda config: config.update(target_modules=pattern))
    started = time.process_time()
    assert 'target_modules is' in refusal(load_bundle, copy)
    assert time.process_time() - started < 5


def another_scale(path):
    """Change one number of the first tensor."""
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    save_file(tensors, path)


@pytest.mark.parametrize(
    ('name', 'change'),
    [
        (HEAD, another_scale),
        (ADAPTER, another_scale),
        (CONFIG, lambda path: edit(path, lambda config: config.update(lora_alpha=17))),
        (
            CONFIG,
            lambda path: edit(path, lambda config: config.update(base_model_name_or_path='a/b')),
        ),
    ],
)
def test_another_file_in_the_bundle_is_refused(copy, name, change):
    """Each file is named by its sha256 in policy.json."""
    change(copy / name)
    assert f'{name} has another sha256' in refusal(load_bundle, copy)


def swap_words(path):
    """Exchange the ids of two words."""

    def swap(content):
        words = content['model']['vocab']
        words['red'], words['blue'] = words['blue'], words['red']

    edit(path, swap)


@pytest.mark.parametrize(
    ('name', 'change'),
    [
        ('tokenizer.json', swap_words),
        (
            'config.json',
            lambda path: edit(path, lambda c: c['text_config'].update(layer_norm_eps=0.1)),
        ),
        (
            'preprocessor_config.json',
            lambda path: edit(path, lambda c: c.update(image_mean=[0.1, 0.1, 0.1])),
        ),
        ('tokenizer_config.json', lambda path: edit(path, lambda c: c.update(pad_token='go'))),
    ],
)
def test_another_file_of_the_backbone_is_refused(copy, backbone, name, change):
    """The weights alone do not decide what a word or a pixel means."""
    change(backbone / name)
    assert f'{name} has another sha256' in refusal(load_bundle, copy, backbone=str(backbone))


def test_a_file_that_was_not_there_in_training_is_refused(copy, backbone):
    """It would be read."""
    (backbone / 'added_tokens.json').write_text('{"red": 4}')
    said = refusal(load_bundle, copy, backbone=str(backbone))
    assert 'added_tokens.json is not in policy.json' in said


@pytest.mark.parametrize('name', [HEAD, ADAPTER, CONFIG, 'adapter', 'policy.json', GOLDEN])
def test_a_link_out_of_the_bundle_is_refused(copy, tmp_path, name):
    """Also when the file there is the right one."""
    shutil.move(copy / name, tmp_path / 'outside')
    (copy / name).symlink_to(tmp_path / 'outside')
    load = read_golden if name == GOLDEN else load_bundle
    assert 'inside its folder' in refusal(load, copy)


@pytest.mark.parametrize('name', ['tokenizer.json', 'config.json', WEIGHTS])
def test_a_link_out_of_the_backbone_is_refused(backbone, tmp_path, name):
    """The hub's cache, whose snapshots link to its blobs, is one folder."""
    shutil.move(backbone / name, tmp_path / 'outside')
    (backbone / name).symlink_to(tmp_path / 'outside')
    assert 'inside its folder' in refusal(load_backbone, str(backbone))


def shard(backbone, name):
    """Replace the weights by an index that names one shard."""
    tensors = load_file(backbone / WEIGHTS)
    (backbone / INDEX).write_text(
        json.dumps({'metadata': {}, 'weight_map': dict.fromkeys(tensors, name)})
    )
    (backbone / WEIGHTS).rename(backbone / 'model-00001-of-00001.safetensors')


@pytest.mark.parametrize(
    'name',
    [
        '../outside.safetensors',
        '{folder}/model-00001-of-00001.safetensors',
        'below/model.safetensors',
        'pytorch_model.bin',
        'model.pkl',
        '..',
        3,
    ],
)
def test_an_index_names_safetensors_in_its_folder(backbone, tmp_path, name):
    """By name alone; the file at the other place is a good one."""
    name = name.format(folder=backbone) if isinstance(name, str) else name
    shard(backbone, name)
    good = backbone / 'model-00001-of-00001.safetensors'
    (backbone / 'below').mkdir()
    for place in ('../outside.safetensors', 'below/model.safetensors', 'pytorch_model.bin'):
        shutil.copy(good, backbone / place)
    assert f'{INDEX} names' in refusal(load_backbone, str(backbone))


def test_shards_are_hashed_and_others_are_not_opened(small_backbone, backbone):
    """The hash is that of the file they were one of."""
    shard(backbone, 'model-00001-of-00001.safetensors')
    (backbone / 'model-00002-of-00001.safetensors').write_bytes(b'junk')
    (backbone / 'pytorch_model.bin').write_bytes(b'junk')
    found = load_backbone(str(backbone))
    assert found.sha256 == load_backbone(small_backbone).sha256
    assert INDEX in found.files and not any('0000' in name for name in found.files)


@pytest.mark.parametrize(
    ('name', 'keys'),
    [
        ('config.json', {'attn_implementation': 'somebody/kernel'}),
        ('config.json', {'auto_map': {'AutoModel': 'somebody/code--model.Model'}}),
        ('config.json', {'quantization_config': {'quant_method': 'gptq', 'bits': 4}}),
        ('config.json', {'transformers_weights': '../outside.safetensors'}),
        ('tokenizer_config.json', {'auto_map': {'AutoTokenizer': ['somebody/code--t.T', None]}}),
        ('tokenizer_config.json', {'tokenizer_file': '/etc/hostname'}),
        ('adapter_config.json', {'base_model_name_or_path': 'somebody/model'}),
    ],
)
def test_a_backbone_brings_no_code_and_asks_no_hub(backbone, asked, name, keys):
    """Whatever its files ask for; it loads as the plain Kosmos-2 that it is."""
    path = backbone / name
    path.write_text(
        json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **keys})
    )
    found = load_backbone(str(backbone))
    assert type(found.model).__name__ == 'Kosmos2Model'
    assert found.model.config._attn_implementation in ('sdpa', 'eager')
    assert asked == []


def test_a_tokenizer_names_no_other_files(backbone):
    """transformers would look for them anywhere."""
    names = ['../tokenizer.1.0.json']
    edit(backbone / 'tokenizer_config.json', lambda c: c.update(fast_tokenizer_files=names))
    assert 'fast_tokenizer_files' in refusal(load_backbone, str(backbone))


@pytest.mark.parametrize(
    'keys',
    [
        {'base_model_name_or_path': 'somebody/model', 'revision': 'main'},
        {'auto_mapping': {'base_model_class': 'Evil', 'parent_library': 'os'}},
        {'bias': ''},
    ],
)
def test_the_settings_of_adapters_ask_no_hub(copy, asked, keys):
    """Rank, alpha, dropout and scope are read; peft never sees the file."""
    age(copy)
    edit(copy / CONFIG, lambda config: config.update(keys))
    load_bundle(copy)
    assert asked == []


@pytest.mark.parametrize(
    'keys',
    [{'auto_map': {'AutoModel': 'a--b'}}, {'trust_remote_code': True}, {'layers_pattern': 'x'}],
)
def test_other_settings_of_adapters_are_refused(copy, keys):
    """This package never sets them."""
    age(copy)
    edit(copy / CONFIG, lambda config: config.update(keys))
    assert 'never sets' in refusal(load_bundle, copy)


def test_a_bundle_makes_no_robot_ask_a_hub_for_a_stranger_s_backbone(copy, asked):
    """Only the known Kosmos-2 is downloaded for a bundle; others must be on the machine."""
    commit = '0' * 40
    edit(
        copy / 'policy.json',
        lambda c: c['backbone'].update(id='somebody/kosmos', revision=commit, sha256='1' * 64),
    )
    said = refusal(load_bundle, copy)
    assert asked == []
    assert f'hf download somebody/kosmos --revision {commit}' in said


@pytest.mark.parametrize(
    ('name', 'offline', 'local'),
    [(KNOWN_HUB, False, [True, False]), (KNOWN_HUB, True, [True]), ('a/b', False, [True])],
)
def test_only_the_known_backbone_is_downloaded_for_a_bundle(
    copy, monkeypatch, name, offline, local
):
    """After a look into the hub's cache on this machine, for the commit that the bundle names."""
    calls = []

    def download(*_names, local_files_only=False, **_more):
        calls.append(local_files_only)
        raise OSError('not there')

    files = 'mobile_vla_ros.model.backbone_files'
    monkeypatch.setattr(f'{files}.snapshot_download', download)
    monkeypatch.setattr(f'{files}.HfApi.repo_info', lambda *_, **__: None)
    edit(
        copy / 'policy.json',
        lambda c: c['backbone'].update(id=name, revision='0' * 40, sha256='1' * 64),
    )
    assert 'not there' in refusal(load_bundle, copy, offline=offline)
    assert calls == local


def test_a_snapshot_of_the_hub_s_cache_links_to_its_blobs(tmp_path):
    """As the hub's client stores it; a link further out is refused."""
    repository = tmp_path / 'models--a--b'
    snapshot = repository / 'snapshots' / ('0' * 40)
    snapshot.mkdir(parents=True)
    for place in (repository / 'blob', tmp_path / 'outside'):
        place.write_text('{}')
    (snapshot / 'config.json').symlink_to('../../blob')
    (snapshot / 'tokenizer.json').symlink_to('../../../outside')
    assert inside(snapshot, 'config.json')
    assert 'inside its folder' in refusal(inside, snapshot, 'tokenizer.json')


LONG = 'x' * 1_000_000


@pytest.mark.parametrize(
    'change',
    [
        {'chunk': 10**9},
        {'window': 10**9},
        {'window': 0},
        {'window': -4},
        {'window': 10**400},
        {'rate_hz': 1e400},
        {'rate_hz': float('nan')},
        {'rate_hz': -10.0},
        {'command_max_age_s': float('inf')},
        {'image': {'size': 10**6}},
        {'image': {'size': 0}},
        {'head': {'hidden': 10**9}},
        {'head': {'layers': -1}},
        {'actions': {'axes': [LONG, 'linear_y']}},
        {'actions': {'axes': ['linear_x'] * 100_000}},
        {'actions': {'scale': [float('inf'), 1.0]}},
        {'actions': {'scale': [0.0, 1.0]}},
        {'backbone': {'id': LONG}},
        {'backbone': {'revision': 'refs/pr/7'}},
        {'backbone': {'revision': '../../main'}},
        {'backbone': {'files': {'../config.json': '0' * 64}}},
        {'files': {'/etc/hostname': '0' * 64}},
        {'files': {}},
        {'files': {HEAD: 'short'}},
        {'instruction_template': '{instruction}' + LONG * 10},
        {'instruction_template': '{instruction}' * 38},
        {'data': {'train_episodes': [LONG]}},
        {'data': {'train_episodes': ['x' * 40] * 1_000_000}},
        {'data': {'mean_action': [float('nan'), 0.0]}},
        {'data': {'blind_means': {'mean_action': [float('inf'), 0.0]}}},
        {'data': {LONG: 1}},
        {'data': {'note': 10**4000}},
        {'data': {'note': json.loads('[' * 300 + ']' * 300)}},
        {'metrics': json.loads('{"a":' * 300 + '1' + '}' * 300)},
    ],
    ids=lambda change: str(change)[:60],
)
def test_the_lengths_and_numbers_of_a_policy_json_are_bounded(copy, asked, change):
    """Before anything is made of them; the sentence is short."""

    def apply(content):
        for name, value in change.items():
            if isinstance(value, dict) and value and name not in ('files', 'metrics'):
                content.setdefault(name, {}).update(value)
            else:
                content[name] = value

    edit(copy / 'policy.json', apply)
    said = refusal(load_bundle, copy)
    assert len(said) < 3000 and asked == []


def test_the_instruction_of_golden_frames_is_bounded(copy):
    """It is tokenised in every check before a drive."""
    save_file(load_file(copy / GOLDEN), copy / GOLDEN, {'instruction': LONG})
    assert 'instruction has 1000000 characters' in refusal(read_golden, copy)


def test_the_name_of_a_tensor_in_a_message_is_short(copy):
    """A stranger's file may have names of a megabyte."""
    save_file(
        {**load_file(copy / HEAD), LONG: load_file(copy / HEAD)['action_token']}, copy / HEAD
    )
    assert len(refusal(load_bundle, copy)) < 3000


def test_an_older_bundle_loads_and_names_what_is_not_hashed(copy):
    """Only the files of the known names are opened, as in any bundle."""
    assert load_bundle(copy).unhashed == ()
    age(copy)
    unhashed = load_bundle(copy).unhashed
    assert {HEAD, ADAPTER, CONFIG, 'config.json', 'tokenizer.json'} <= set(unhashed)
    ready = load_policy(str(copy))
    assert ready.golden_ok
    assert f'{len(unhashed)} files of this older bundle' in ready.golden_sentence


def test_a_bundle_names_every_file_that_it_loads(small_run):
    """Each with its sha256."""
    spec = read_spec(small_run / 'best')
    assert set(spec.files) == {HEAD, ADAPTER, CONFIG}
    # transformers before 5 writes one more.
    assert set(spec.backbone.files) - {'special_tokens_map.json'} == {
        'config.json',
        'preprocessor_config.json',
        'tokenizer.json',
        'tokenizer_config.json',
    }


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({'scale': [1e10, 1.0]}, 'actions.scale'),
        ({'lora_alpha': True}, 'lora_alpha is True'),
    ],
)
def test_a_training_whose_bundle_would_not_load_is_refused_at_its_start(
    small_backbone, episode_folder, tmp_path, settings, expected
):
    """Not at its end, in words of a schema; nothing is written."""
    out = tmp_path / 'run'
    own = {name: value for name, value in settings.items() if name in ('scale', 'window')}
    others = {name: value for name, value in settings.items() if name not in own}
    said = refusal(
        lambda: train(
            ModelConfig(
                **{
                    'backbone': small_backbone,
                    'lora_r': 4,
                    'head_hidden': 32,
                    'head_layers': 1,
                    **others,
                }
            ),
            DataConfig(data=str(episode_folder), **own),
            TrainConfig(out=str(out), epochs=1, device='cpu'),
            log=lambda _: None,
        )
    )
    assert 'cannot be trained' in said and expected in said
    assert not out.exists()


def test_adapters_of_a_newer_peft_are_refused_with_both_versions(copy):
    """Where it stored what this one does not know; a newer one that stored nothing new loads."""
    edit(copy / CONFIG, lambda config: config.update(peft_version='99.1.0'))
    age(copy)
    load_bundle(copy)
    edit(copy / CONFIG, lambda config: config.update(new_kind_of_adapter=True))
    said = refusal(load_bundle, copy)
    assert f'made by peft 99.1.0, newer than peft {peft.__version__} here' in said
