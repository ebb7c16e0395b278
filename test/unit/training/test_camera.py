"""A policy that is trained on the second camera of its episodes, and measured by it."""

import base64
import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.augment import Augmentation
from mobile_vla_ros.data.episodes import load_episodes
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.data.segments import Sampling, fingerprint, load_segments
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.schema import EpisodeInfo, new_episode_id
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.model.backbone import load_backbone
from mobile_vla_ros.model.golden import read_golden
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.training.config import DataConfig, ModelConfig
from mobile_vla_ros.training.initial_policy import inherit_settings
from mobile_vla_ros.types import Command
from small_episodes import WRIST, compressed
from small_training import small_run_flags

START_NS, PERIOD_NS = 1_760_000_000_000_000_000, 100_000_000
NAME = '/wrist/image_raw'
EPISODES, FRAMES, SIDE = 6, 24, 56  # at the side of the small backbone nothing is resized
EVERY = ['--accept_verdicts', 'good', 'poor', 'bad']


def picture(camera: str, number: int, row: int) -> np.ndarray:
    """Return (SIDE, SIDE, 3) uint8: noise; blue only by the wrist's camera."""
    wrist = camera == NAME
    image = np.random.default_rng([wrist, number, row]).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    image[..., 2] = 255 * wrist
    return image


def pictures(camera: str, *numbers: int) -> set[tuple[str, int, int]]:
    """Return the arguments of all pictures of some episodes."""
    return {(camera, number, row) for number in numbers for row in range(FRAMES)}


def write(folder: Path, number: int, channel: Channel | None = WRIST) -> Path:
    """Write an episode of the main camera and, with a channel, of the wrist's."""
    start_ns = START_NS + number * 60 * 10**9
    writer = EpisodeWriter(
        folder,
        EpisodeInfo('go'),
        start_ns,
        episode_id=new_episode_id(start_ns, str(number)),  # the split depends on it
        messages=channel is not None,
    )
    for row in range(FRAMES):
        now_ns = start_ns + row * PERIOD_NS
        writer.add_frame(encode(picture('', number, row), 'png'), now_ns, now_ns)
        twist = np.array([0.4 - number % 2 * 0.8, 0, 0, 0, 0, 0])
        writer.add_command(Command(twist, now_ns, now_ns, 'teleop'))
        if channel is not None:
            image = encode(picture(NAME, number, row), 'png')
            writer.add_message(channel, compressed(image), now_ns, now_ns)
    return writer.close('success')


@pytest.fixture(scope='module')
def episodes(tmp_path_factory) -> Path:
    """Six episodes with two cameras."""
    folder = tmp_path_factory.mktemp('two')
    for number in range(EPISODES):
        write(folder, number)
    return folder


@pytest.fixture(scope='module')
def names(small_backbone) -> dict[bytes, tuple[str, int, int]]:
    """The arguments of each picture by what the network is to get of it."""
    spec = load_backbone(small_backbone).image
    every = pictures('', *range(EPISODES)) | pictures(NAME, *range(EPISODES))
    found = {pixels(normalise(picture(*one)[None], spec)[0]): one for one in every}
    assert len(found) == 2 * EPISODES * FRAMES
    return found


def pixels(image: torch.Tensor) -> bytes:
    """Return the bytes of the network's input."""
    return image.numpy().tobytes()


@contextlib.contextmanager
def network_input() -> Iterator[set[bytes]]:
    """Collect every image that a network is given, except blank ones."""
    seen: set[bytes] = set()
    image_tokens = VlaNetwork.image_tokens

    def spy(network, images):
        seen.update(pixels(image) for image in images if image.any())
        return image_tokens(network, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VlaNetwork, 'image_tokens', spy)
        yield seen


@pytest.fixture(scope='module')
def trained(episodes, small_backbone, names, tmp_path_factory) -> Path:
    """The bundle of a policy that was trained on the wrist's camera, and on nothing else."""
    out = tmp_path_factory.mktemp('run') / 'out'
    flags = small_run_flags(small_backbone, episodes, out, camera='wrist', epochs=1)
    with network_input() as seen:
        assert main(['train', *flags, *EVERY]) == 0
    assert {names[one] for one in seen} == pictures(NAME, *range(EPISODES))
    return out / 'best'


def test_a_policy_names_and_shows_the_camera_that_it_was_trained_on(trained, names):
    """In policy.json, in its golden frames, and in the report with the images of bad windows."""
    spec = read_spec(trained)
    assert spec.camera == json.loads((trained / 'policy.json').read_text())['camera'] == NAME
    golden = normalise(read_golden(trained).frames, spec.image)
    assert {names[pixels(frame)][0] for frame in golden} == {NAME}
    page = (trained.parent / 'report.html').read_text()
    shown = [base64.b64decode(found) for found in re.findall(r'image/jpeg;base64,([^"]+)', page)]
    assert NAME in page and shown
    for image in shown:
        assert np.asarray(Image.open(io.BytesIO(image)))[..., 2].mean() > 200


@pytest.mark.parametrize('camera', [NAME, ''])
def test_a_policy_is_measured_by_the_camera_that_it_names(
    trained, episodes, names, tmp_path, camera
):
    """Without a flag, by evaluate, replay and --store-golden; one without the key by the main."""
    policy = shutil.copytree(trained.resolve(), tmp_path / 'policy')
    manifest = json.loads((policy / 'policy.json').read_text())
    if not camera:
        del manifest['camera']  # as in bundles from before there were cameras
        (policy / 'policy.json').write_text(json.dumps(manifest))
        assert 'camera' not in json.loads(read_spec(policy).to_json())
    assert read_spec(policy).camera == camera
    paths = sorted(episodes.glob('*.h5'))
    held_out = [n for n, one in enumerate(paths) if one.stem in manifest['data']['val_episodes']]
    with network_input() as seen:
        assert main(['evaluate', '--data', str(episodes), '--policy', str(policy)]) == 0
    assert {names[one] for one in seen} == pictures(camera, *held_out)
    with network_input() as seen:
        assert main(['replay', str(paths[3]), '--policy', str(policy)]) == 0
    assert {names[one] for one in seen} == pictures(camera, 3)
    assert main(['replay', str(paths[5]), '--policy', str(policy), '--store-golden']) == 0
    golden = normalise(read_golden(policy).frames, read_spec(policy).image)
    assert [names[pixels(one)] for one in golden] == [(camera, 5, row) for row in range(4)]


def test_a_camera_has_image_tokens_of_its_own(episodes, names, small_backbone, tmp_path):
    """In one folder for both: those of the one are not taken for the other's."""
    spec, seen = load_backbone(small_backbone).image, []

    def tokens(images):
        seen.extend(names.get(pixels(image), ('blank',)) for image in images)
        return images.mean((2, 3))[:, None]

    for camera in ('', NAME):
        seen.clear()
        found, _ = load_segments([*episodes.glob('*.h5')], Sampling(camera=camera), EVERY[1:])
        ImageTokens(tokens, 'w', spec, Augmentation(), tmp_path).prepare(found)
        assert {*seen} - {('blank',)} == pictures(camera, *range(EPISODES))


def test_a_manifest_with_another_camera_than_a_name_is_refused(trained, tmp_path):
    """A number, for example."""
    manifest = json.loads((trained / 'policy.json').read_text())
    policy = shutil.copytree(trained.resolve(), tmp_path / 'policy')
    (policy / 'policy.json').write_text(json.dumps({**manifest, 'camera': 3}))
    with pytest.raises(UserError, match='camera is 3, not the name of a camera'):
        read_spec(policy)


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
