"""Policies and episodes go to a hub as listed, and come back equal."""

import shutil

import pytest
import yaml

from command_line import mobile_vla
from hub_server import Hub
from mobile_vla_ros.files import sha256
from mobile_vla_ros.model.builtin import POLICIES

POLICY, SET = 'models/me/demo', 'datasets/me/takes'
BUNDLE = {
    'policy.json',
    'head.safetensors',
    'adapter/adapter_config.json',
    'adapter/adapter_model.safetensors',
    'golden.safetensors',
    'README.md',
}


@pytest.fixture
def hub():
    """A hub on the loopback."""
    one = Hub()
    yield one
    one.close()


@pytest.fixture
def run(hub, tmp_path):
    """Run `mobile_vla` against the hub; return status and all it printed."""

    def command(*arguments, token: str | None = None):
        environment = hub.environment(tmp_path / 'home', **({'token': token} if token else {}))
        done = mobile_vla(*arguments, **environment)
        assert 'Traceback' not in done.stderr
        return done.returncode, done.stdout + done.stderr

    return command


def digests(folder) -> dict[str, str]:
    """Return the hashes of the files of a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in folder.rglob('*')
        if path.is_file() and path.name != 'README.md'
    }


def test_a_policy_is_listed_then_sent_and_comes_back_equal(run, hub, tmp_path):
    """Without --yes no request is made; its card's index has the baselines that see no image."""
    status, out = run('policy', 'push', 'builtin:demo', 'me/demo')
    assert status == 0 and 'head.safetensors' in out and 'add --yes' in out
    assert not hub.requests

    status, out = run('policy', 'push', 'builtin:demo', 'me/demo', '--yes', '--private')
    assert status == 0, out
    assert set(hub.files[POLICY]) == BUNDLE and hub.private == {POLICY}
    _, about, page = hub.files[POLICY]['README.md'].decode().split('---\n', 2)
    metrics = yaml.safe_load(about)['model-index'][0]['results'][0]['metrics']
    found = {one['name'].removeprefix('loss_arm_act, '): one['value'] for one in metrics}
    assert found['the policy'] == pytest.approx(0.0036, rel=0.01)
    assert found['baseline: repeat last'] == pytest.approx(0.00568, rel=0.01)
    assert '| baseline: repeat last | 0.00568 |' in page

    hub.files[POLICY]['old.safetensors'] = b'of an earlier push'
    sent = len(hub.uploads)
    assert run('policy', 'push', 'builtin:demo', 'me/demo', '--yes')[0] == 0
    assert len(hub.uploads) == sent and set(hub.files[POLICY]) == BUNDLE
    hub.private.clear()
    status, out = run('policy', 'push', 'builtin:demo', 'me/demo', '--yes', '--private')
    assert status == 2 and 'me/demo is public' in out

    hub.files[POLICY]['setup.py'] = b'import os'
    status, out = run('policy', 'pull', 'me/demo', tmp_path / 'back')
    assert status == 0, out
    assert set(digests(tmp_path / 'back')) == BUNDLE - {'README.md'}
    shipped = digests(POLICIES['builtin:demo'])
    assert digests(tmp_path / 'back').items() <= shipped.items()
    assert not list(tmp_path.glob('.*pulling'))


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        ('changed', 'head.safetensors differs from its policy.json'),
        ('lacking', 'no head.safetensors'),
        ('absent', 'the hub has no me/demo'),
        ('exists', 'a folder that exists'),
        ('name', 'a repository is named OWNER/NAME'),
    ],
)
def test_what_cannot_be_pulled_leaves_nothing(run, hub, tmp_path, fault, words):
    """A sentence each, and no folder."""
    repo, back = 'me/demo', tmp_path / 'back'
    source = POLICIES['builtin:demo']
    if fault != 'absent':
        names = BUNDLE - {'README.md'}
        hub.files[POLICY] = {name: (source / name).read_bytes() for name in names}
    if fault == 'changed':
        hub.files[POLICY]['head.safetensors'] += b'x'
    elif fault == 'lacking':
        del hub.files[POLICY]['head.safetensors']
    elif fault == 'exists':
        back.mkdir()
    elif fault == 'name':
        repo = 'me/de/mo'
    status, out = run('policy', 'pull', repo, back)
    assert (status, words in out) == (2, True), out
    assert back.exists() == (fault == 'exists')
    assert not list(tmp_path.glob('.*pulling'))


def test_who_may_not_push_is_told_how(run, hub):
    """With the token of nobody."""
    status, out = run('policy', 'push', 'builtin:demo', 'me/demo', '--yes', token='hf_other')
    assert status == 2 and 'hf auth login' in out and not hub.files


def test_without_a_hub_it_is_a_sentence(run, hub):
    """Nobody listens there."""
    hub.close()
    status, out = run('policy', 'push', 'builtin:demo', 'me/demo', '--yes')
    assert status == 2 and 'expected a hub that can be reached' in out


def test_episodes_go_with_their_edits_and_come_back_equal(run, hub, episode_folder, tmp_path):
    """What a training would refuse stays, by name; what is there is not overwritten."""
    folder = tmp_path / 'takes'
    shutil.copytree(episode_folder, folder)
    first, second, *_ = sorted(folder.glob('*.h5'))
    second.write_bytes(second.read_bytes()[:5000])
    status, out = mobile_edit(run, first)
    assert status == 0, out
    status, out = run('episodes', 'push', folder, 'me/takes', '--yes')
    assert status == 0, out
    assert f'left out: {second}' in out and 'what a trim cuts off is sent too' in out
    kept = {name for name in digests(folder) if name != second.name and not name.startswith('.')}
    assert set(hub.files[SET]) == kept | {'README.md'}
    assert '| episodes | 5, 0 left out |' in hub.files[SET]['README.md'].decode()

    back = tmp_path / 'back'
    status, out = run('episodes', 'pull', 'me/takes', back)
    assert status == 0, out
    assert digests(back).items() == {(n, d) for n, d in digests(folder).items() if n in kept}

    third = next(path for path in sorted(back.glob('*.h5')) if path.name != first.name)
    third.write_bytes(b'mine')
    hub.files[SET]['broken.h5'] = b'no HDF5'
    status, out = run('episodes', 'pull', 'me/takes', back)
    assert status == 1 and f'{third} exists and differs' in out and 'broken.h5: left out' in out
    assert third.read_bytes() == b'mine' and not (back / 'broken.h5').exists()

    edits = first.with_suffix('.edits.json').name
    (back / edits).unlink()
    assert run('episodes', 'pull', 'me/takes', back)[0] == 1
    assert (back / edits).read_bytes() == hub.files[SET][edits]


def mobile_edit(run, path):
    """Give an episode an edit."""
    return run('episodes', 'edit', path, '--outcome', 'failure')


def test_an_interrupted_push_goes_on(run, hub, episode_folder):
    """A hub that fails is a sentence; what came is not sent again."""
    hub.fail_after = 0
    status, out = run('episodes', 'push', episode_folder, 'me/takes', '--yes')
    assert status == 2 and 'the hub refuses me/takes' in out
    assert not hub.files[SET] and hub.uploads
    sent, hub.fail_after = len(hub.uploads), 1_000
    assert run('episodes', 'push', episode_folder, 'me/takes', '--yes')[0] == 0
    assert hub.files[SET] and len(hub.uploads) == sent
