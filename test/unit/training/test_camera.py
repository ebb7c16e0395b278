"""A policy that is trained on the second camera of its episodes, and measured by it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.episodes import load_episodes
from mobile_vla_ros.data.segments import Sampling, fingerprint
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.schema import EpisodeInfo, new_episode_id
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.messages import encode
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.replay.run import replay
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.training.config import DataConfig, ModelConfig
from mobile_vla_ros.training.initial_policy import inherit_settings
from mobile_vla_ros.types import Command
from small_episodes import WRIST, compressed
from small_training import small_run_flags

START_NS, PERIOD_NS = 1_760_000_000_000_000_000, 100_000_000
NAME = '/wrist/image_raw'
SPEED = 0.4
EVERY = ['--accept_verdicts', 'good', 'poor', 'bad']


def write(folder: Path, number: int, channel: Channel | None = WRIST) -> Path:
    """Write an episode in which only the wrist's camera shows which way the base drives."""
    start_ns, rng = START_NS + number * 60 * 10**9, np.random.default_rng(number)
    writer = EpisodeWriter(
        folder,
        EpisodeInfo('go'),
        start_ns,
        episode_id=new_episode_id(start_ns, str(number)),  # the split depends on it
        messages=channel is not None,
    )
    ahead = number % 2 == 0
    twist = np.array([SPEED if ahead else -SPEED, 0, 0, 0, 0, 0])
    for row in range(24):
        now_ns = start_ns + row * PERIOD_NS
        noise = rng.integers(0, 256, (64, 64, 3), np.uint8)
        writer.add_frame(encode(noise), now_ns, now_ns)
        writer.add_command(Command(twist, now_ns, now_ns, 'teleop'))
        if channel is not None:
            shown = noise // 4
            shown[..., 0 if ahead else 2] += 190
            writer.add_message(channel, compressed(encode(shown), 'jpeg'), now_ns, now_ns)
    return writer.close('success')


@pytest.fixture(scope='module')
def episodes(tmp_path_factory) -> Path:
    """Six episodes with two cameras."""
    folder = tmp_path_factory.mktemp('two')
    for number in range(6):
        write(folder, number)
    return folder


@pytest.fixture(scope='module')
def trained(episodes, small_backbone, tmp_path_factory) -> Path:
    """The bundle of a policy that was trained on the wrist's camera."""
    out = tmp_path_factory.mktemp('run') / 'out'
    flags = small_run_flags(
        small_backbone,
        episodes,
        out,
        camera='wrist',
        epochs=8,
        accumulate=1,
        learning_rate=0.002,
        lora_learning_rate=0.01,
        scale=2 * SPEED,
    )
    assert main(['train', *flags, '--axes', 'linear_x', *EVERY]) == 0
    return out / 'best'


def error_mps(policy: Path, episodes: Path) -> float:
    """Return the mean error of a policy on an episode of either direction."""
    errors = []
    for path in sorted(episodes.glob('*.h5'))[:2]:
        found = replay(path, VlaPolicy.load(policy), None)
        errors.append(np.abs(found.twist - found.driven)[found.commanded, 0].mean())
    return float(np.mean(errors))


def test_a_policy_uses_the_camera_that_it_was_trained_on(trained, episodes, tmp_path, capsys):
    """By its own camera it drives right without a flag; by the main one it could only guess."""
    spec = read_spec(trained)
    assert spec.camera == NAME and json.loads(spec.to_json())['camera'] == NAME
    assert NAME in (trained.parent / 'report.html').read_text()
    older = tmp_path / 'older'
    shutil.copytree(trained.resolve(), older)
    manifest = json.loads((older / 'policy.json').read_text())
    del manifest['camera']  # as in bundles from before there were cameras
    (older / 'policy.json').write_text(json.dumps(manifest))
    assert read_spec(older).camera == '' and 'camera' not in json.loads(read_spec(older).to_json())
    assert error_mps(trained, episodes) < SPEED / 3
    assert error_mps(older, episodes) > 2 * SPEED / 3
    losses = []
    for policy in (trained, older):
        capsys.readouterr()
        assert main(['evaluate', '--data', str(episodes), '--policy', str(policy), '--json']) == 0
        losses.append(json.loads(capsys.readouterr().out)['policy']['linear_x']['mae'])
    assert losses[0] == pytest.approx(spec.metrics['policy']['linear_x']['mae'], rel=1e-4)
    assert losses[1] != pytest.approx(losses[0], rel=0.1)
    manifest['camera'] = 3
    (older / 'policy.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match='camera is 3, not the name of a camera'):
        read_spec(older)


def test_a_training_that_continues_keeps_or_changes_the_camera(trained):
    """Without --camera it is the policy's; another one is allowed, as no weight depends on it."""
    for given, expected in (('', NAME), ('/rear/image_raw', '/rear/image_raw')):
        model = ModelConfig(init=str(trained))
        assert inherit_settings(model, DataConfig('x', camera=given))[1].camera == expected


def test_an_episode_without_the_camera_is_left_out_by_name(episodes, tmp_path, capsys):
    """It is no unreadable file; if none has it, the sentence names those that there are."""
    shutil.copytree(episodes, tmp_path, dirs_exist_ok=True)
    lacking = write(tmp_path, 6, None)
    sampling, every = Sampling(camera='wrist'), ('good', 'poor', 'bad')
    loaded = load_episodes(tmp_path, sampling, every, 0.2, 0)
    assert loaded.camera == NAME and loaded.unreadable == 0
    assert list(loaded.left_out) == [str(lacking)]
    assert loaded.left_out[str(lacking)].startswith("it has no camera 'wrist'")
    by_main = load_episodes(episodes, Sampling(), every, 0.2, 0)
    both = [[*one.train, *one.val] for one in (loaded, by_main)]
    assert by_main.camera == '' and fingerprint(both[0]) != fingerprint(both[1])
    with pytest.raises(UserError, match=r"has no camera 'wirst'.*Did you mean 'wrist'"):
        load_episodes(episodes, Sampling(camera='wirst'), every, 0.2, 0)
    assert main(['episodes', 'audit', str(tmp_path), '--camera', 'wrist', *EVERY]) in (0, 1)
    assert 'episodes        6, 1 left out' in capsys.readouterr().out


def test_cameras_of_different_names_are_not_mixed(episodes, tmp_path):
    """One part of a name may mean another camera in another episode."""
    shutil.copytree(episodes, tmp_path, dirs_exist_ok=True)
    write(tmp_path, 6, Channel('/left_wrist/image_raw/compressed', WRIST.type))
    with pytest.raises(UserError, match="different cameras 'wrist'; got /left_wrist/image_raw "):
        load_episodes(tmp_path, Sampling(camera='wrist'), ('good', 'poor', 'bad'), 0.2, 0)
