"""The report of a training: complete, self-contained, honest, and written for any input."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from browser import dump_dom, needs_chromium, with_script
from made_segments import sliding
from mobile_vla_ros.data.episodes import EpisodeSet, load_episodes
from mobile_vla_ros.data.segments import Sampling, Segment
from mobile_vla_ros.data.split import Repeats
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.evaluation.baselines import baselines, targets
from mobile_vla_ros.evaluation.metrics import measure
from mobile_vla_ros.evaluation.score import Scored
from mobile_vla_ros.evaluation.verdict import sure
from mobile_vla_ros.model.policy_spec import BackboneRef, HeadSettings, PolicySpec
from mobile_vla_ros.report.builders import training as train_report
from mobile_vla_ros.report.figures import training_plots
from mobile_vla_ros.report.pages import training_page
from mobile_vla_ros.types import ActionSpec, Command, ImageSpec
from small_episodes import CREATED_NS, PERIOD_NS, START_NS, encoded

SECTIONS = [
    'What the episodes teach',
    'Learning curves',
    'Beside predictors that see no image',
    'Predicted against driven',
    'Error over the chunk',
    'Along whole episodes',
    'The worst windows',
    'The episodes',
    'Settings and versions',
]
VOID = {'meta', 'img', 'br', 'link'}
FRAMES = 30
HISTORY = [
    {
        'epoch': epoch,
        'train_loss': 0.1 / (epoch + 1),
        'val_loss': 0.12 / (epoch + 1),
        'train_loss_arm_act': 0.03 / (epoch + 1),
        'val_loss_arm_act': 0.04 / (epoch + 1),
        'val_mae_linear_x': 0.1,
        'acc_gripper_act': 1.0,
    }
    for epoch in range(3)
]


def write_episodes(folder: Path, instructions: list[str]) -> None:
    """Write episodes of three seconds; each drives its own wave, each image holds its number."""
    for number, instruction in enumerate(instructions):
        writer = EpisodeWriter(folder, EpisodeInfo(instruction), CREATED_NS + number * 10**9)
        for index in range(FRAMES):
            at_ns = START_NS + index * PERIOD_NS
            writer.add_frame(encoded(8 * index), at_ns, at_ns)
            wave = np.sin(index / (4 + number)) / 2
            writer.add_command(
                Command(np.array([0.5 - wave / 4, wave, 0, 0, 0, -wave]), at_ns, at_ns, 'teleop')
            )
        writer.close('success')


def policy(axes=('linear_x', 'linear_y'), window: int = 4, chunk: int = 5, **more) -> PolicySpec:
    """Return a bundle's spec; its epoch is the last of HISTORY."""
    more = {'metrics': {'epoch': HISTORY[-1]}, **more}
    return PolicySpec(
        backbone=BackboneRef('builtin:tiny', None, 'ab' * 32),
        head=HeadSettings(features=8, hidden=8, layers=1, chunk=chunk, motion_dims=len(axes)),
        image=ImageSpec(56, (0.5,) * 3, (0.5,) * 3),
        actions=ActionSpec(axes, (0.5,) * len(axes)),
        rate_hz=10.0,
        window=window,
        chunk=chunk,
        **more,
    )


def score(
    spec: PolicySpec, episodes: EpisodeSet, noise: float = 0.05, change=None, **more
) -> Scored:
    """Return an evaluation of a policy with an error of `noise`; `change` edits its actions."""
    actions, real, _ = targets(episodes.val, spec.actions)
    rng = np.random.default_rng(0)
    predicted = actions + noise * rng.standard_normal(actions.shape).astype(np.float32)
    if change:
        change(predicted)

    def entry(prediction) -> dict:
        return measure(prediction, actions, real, spec.actions)

    summary = {
        'windows': len(actions),
        'baselines': {
            name: entry(values)
            for name, values in baselines(episodes.train, episodes.val, spec.actions).items()
        },
    }
    moved = dict.fromkeys(spec.actions.axes, 0.1)
    controls = {
        'image_blanked': 0 * predicted,
        'frames_shuffled': predicted[::-1],
        'instruction_swapped': -predicted,
    }
    worse = {'difference': 0.5, 'low': 0.4, 'high': 0.6, 'takes': 9}
    summary['policy'] = {
        **entry(predicted),
        **{name: {**entry(values), 'margin': worse} for name, values in controls.items()},
        'change': dict.fromkeys(controls, moved),
        'change_share': dict.fromkeys(controls, 0.5),
        'verdict': ['It is better than <i>all</i> of them.', 'Even than mean_per_step: 0.1.'],
        **more,
    }
    return Scored(summary, episodes.val, actions, predicted, real)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight episodes; one instruction contains HTML."""
    folder = tmp_path_factory.mktemp('episodes')
    write_episodes(folder, ['go to the red box'] * 4 + ['<b>go</b> & "stop"'] * 4)
    return folder


def load(folder: Path, spec: PolicySpec, share: float = 0.4) -> EpisodeSet:
    """Return the episodes of a folder, split."""
    return load_episodes(
        folder, Sampling(spec.rate_hz, spec.window, spec.chunk), ['good', 'poor'], share, 0
    )


@pytest.fixture(scope='module')
def page(folder, tmp_path_factory):
    """The path of the report of a good policy."""
    spec = policy()
    episodes = load(folder, spec)
    return train_report.write(
        tmp_path_factory.mktemp('report') / 'report.html',
        spec,
        score(spec, episodes),
        episodes,
        history=HISTORY,
        config={'epochs': 3, 'learning_rate': 1e-4, 'parameters': {'lora': 12345}},
    )


def report(tmp_path: Path, spec: PolicySpec, scored: Scored, episodes: EpisodeSet, **more) -> str:
    """Write a report and check its balance; return its text."""
    text = train_report.write(tmp_path / 'report.html', spec, scored, episodes, **more).read_text()
    Balanced().check(text)
    return text


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out what matplotlib takes most of a second for, where only the words count."""
    monkeypatch.setattr(training_plots, 'svg', lambda drawing: Markup('<svg></svg>'))


@pytest.fixture
def only_curves(monkeypatch):
    """Draw no figure but the learning curves."""
    for name in ('scatter', 'over_the_chunk', 'along_an_episode', 'commands'):
        monkeypatch.setattr(training_plots, name, lambda *_, **__: Markup('<svg></svg>'))


class Balanced(HTMLParser):
    """A parser that fails if an element is not closed in order."""

    def check(self, text: str):
        """Parse a whole page."""
        self.open = []
        self.feed(text)
        self.close()
        assert self.open == [] and text.endswith('</html>\n')

    def handle_starttag(self, tag, attrs):
        """Push an element."""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Pop an element, which must be the last one opened."""
        assert self.open.pop() == tag


def headings(text: str) -> list[str]:
    """Return the headings of the page's sections."""
    return re.findall(r'<h2>(.*?)</h2>', text)


def worst(text: str) -> list[str]:
    """Return the HTML of each of the worst windows."""
    return text.split('<div class="worst">')[1:]


def images_in(text: str) -> list[np.ndarray]:
    """Return the decoded JPEGs of some HTML."""
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    ]


def test_the_page_is_self_contained_and_has_every_section(page):
    """One balanced file without scripts, and without addresses except SVG namespaces."""
    text = page.read_text()
    Balanced().check(text)
    assert headings(text) == SECTIONS
    assert '<script' not in text and '<link' not in text and '@import' not in text
    allowed = 'http://www.w3.org/'
    for address in re.findall(r'https?://[^"\s<]+', text):
        assert address.startswith(allowed)
    assert re.findall(r'(?:href|src)="(?!#|data:)', text) == []
    assert len(text) < 3_000_000


def test_the_verdict_is_on_top_in_words_and_in_metres_per_second(page):
    """The policy, its amount of data, its margin, and the evaluation's sentences."""
    text = page.read_text()
    top = text[: text.index('<h2>')]
    assert 'Training: better than predictors without an image' in top
    assert 'trained for 3 epochs on 5 episodes (0.2 minutes, 2 instructions)' in top
    assert 'measured on 3 episodes' in top and 'did not train on' in top
    assert re.search(r'mean error is 0\.0\d\d m/s forward and 0\.0\d\d m/s sideways', top)
    assert re.search(r'The policy is 0\.\d{3} m/s better and 0\.\d{3} m/s better', top)
    assert 'It is better than &lt;i&gt;all&lt;/i&gt; of them.' in top
    assert 'Even than “mean of each step”: 0.1.' in top, 'a baseline has one name on the page'
    assert 'class="verdict good"' in top and top.count('class="card good"') == 5
    assert 'loss_arm_act' in top


@pytest.mark.usefixtures('undrawn')
def test_a_policy_no_better_than_the_baselines_is_not_praised(folder, tmp_path):
    """Title, colour and cards are negative."""
    spec = policy()
    episodes = load(folder, spec)
    text = report(tmp_path, spec, score(spec, episodes, noise=3.0), episodes, history=HISTORY)
    top = text[: text.index('<h2>')]
    assert 'NOT better than predictors without an image' in top
    assert 'class="verdict bad"' in top and 'm/s worse' in top
    assert top.count('class="card bad"') >= 3


@pytest.mark.usefixtures('undrawn')
def test_numbers_on_training_episodes_are_not_praised(folder, tmp_path):
    """However good they are."""
    spec = policy()
    episodes = load(folder, spec)
    text = report(tmp_path, spec, score(spec, episodes, better=True, trained_on=True), episodes)
    assert 'Evaluation: episodes that it was trained on' in text and 'class="verdict "' in text
    assert 'did not train on' not in text


@pytest.mark.parametrize(
    ('margin', 'is_sure'),
    [
        ({'low': -2.0, 'high': -0.5, 'takes': 9}, True),
        ({'low': -2.0, 'high': 0.5, 'takes': 9}, False),
        ({'low': -2.0, 'high': -0.5, 'takes': 3}, False),
        ({'low': None, 'high': None, 'takes': 1}, False),
    ],
)
def test_a_margin_is_sure_or_perhaps(margin, is_sure):
    """Too few or disagreeing episodes."""
    assert sure(margin) == is_sure


@pytest.mark.usefixtures('undrawn')
def test_a_difference_that_may_be_chance_is_not_announced(folder, tmp_path):
    """`perhaps`, and no green."""
    spec = policy()
    episodes = load(folder, spec)
    margin = {'low': -2.0, 'high': 0.5, 'takes': 9}
    scored = score(spec, episodes, margin=margin)
    scored.summary['policy']['image_blanked']['margin'] = margin | {'low': -1.0, 'high': 1.0}
    text = report(tmp_path, spec, scored, episodes, history=HISTORY)
    assert '<h1>Training: perhaps better than' in text
    assert 'class="verdict good"' not in text
    assert re.search(r'class="card "><b>[\d.]+ ×</b><span>its loss without images', text)


@pytest.mark.usefixtures('undrawn')
def test_better_than_baselines_of_other_episodes_is_not_announced(folder, tmp_path):
    """`perhaps`, no green, and the reason is the first sentence."""
    spec = policy()
    episodes = load(folder, spec)
    scored = score(spec, episodes)
    scored.summary['blind'] = {'warning': 'They are fitted to 1 of the episodes here.'}
    text = report(tmp_path, spec, scored, episodes)
    assert '<h1>Evaluation: perhaps better than' in text and 'class="verdict "' in text
    assert '<ul><li>They are fitted to 1 of the episodes here.</li>' in text


@pytest.mark.usefixtures('undrawn')
def test_a_control_is_not_blamed_for_its_missing_input(folder, tmp_path):
    """Trained without images: no card asks whether it uses them."""
    spec = policy(blank='image')
    episodes = load(folder, spec)
    text = report(tmp_path, spec, score(spec, episodes), episodes)
    top = text[: text.index('<h2>')]
    assert 'A control without images' in top
    assert 'would not use the image' not in top and 'would not use the instruction' in top


def test_instructions_are_escaped(page):
    """In the lists of episodes, the worst windows and the coverage."""
    text = page.read_text()
    assert '<b>go' not in text
    assert text.count('&lt;b&gt;go&lt;/b&gt; &amp; &#34;stop&#34;') >= 3


@pytest.mark.usefixtures('undrawn')
def test_the_worst_windows_are_shown_with_their_frames(folder, tmp_path):
    """Episode, second and images, oldest first; at most one window per second of an episode."""
    spec = policy()
    episodes = load(folder, spec)
    per_segment = FRAMES - spec.window + 1

    def plant(predicted):
        predicted[per_segment + 10] = (
            0.2,
            -3.0,
        )  # newest frame 13: second 1.3 of the second segment
        predicted[per_segment + 12] = 0.2, -2.8  # within a second of it
        predicted[2 * per_segment + 20] = 0.2, -2.6

    text = report(tmp_path, spec, score(spec, episodes, change=plant), episodes)
    first, second, *_ = worst(text)
    assert episodes.val[1].episode_id in first and 'second 1.3;' in first
    assert 'over the next 0.5 s' in first
    assert episodes.val[2].episode_id in second and 'second 2.3;' in second
    assert not any(
        episodes.val[1].episode_id in other and 'second 1.5;' in other for other in worst(text)
    )
    assert len(worst(text)) == 6
    assert {image.shape for image in images_in(first)} == {(180, 240, 3)}, 'as 16 to 12'
    reds = [int(np.median(image[:60, :, 0])) for image in images_in(first)]
    assert reds == pytest.approx([80, 88, 96, 104], abs=3), 'frames 10 to 13'
    newest = images_in(first)[-1].astype(int)
    assert (newest.min(-1) > 230).sum() > 20, 'a white arrow'
    assert ((newest[..., 0] > 170) & (newest[..., 2] < 170)).sum() > 20, 'a yellow arrow'
    assert 'driven: linear_x +0.' in first
    assert 'predicted: linear_x +0.10 m/s, linear_y −1.50 m/s' in first


@pytest.mark.usefixtures('undrawn')
def test_broken_and_missing_episodes_are_named_and_the_rest_is_shown(folder, tmp_path):
    """One file does not prevent the report of hours of work."""
    copy = shutil.copytree(folder, tmp_path / 'episodes')
    spec = policy()
    episodes = load(copy, spec)
    scored = score(spec, episodes, broken=['x.h5 is broken at frame 7 <!>'])
    episodes.val[0].path.unlink()
    episodes.val[1].path.write_bytes(b'no HDF5')
    text = report(tmp_path, spec, scored, episodes, history=HISTORY)
    assert headings(text) == SECTIONS
    problems = [part for part in worst(text) if 'cannot show its frames' in part]
    assert any('no episode at' in part for part in problems)
    assert any('cannot be read as an episode' in part for part in problems)
    assert len(problems) < len(worst(text)) and images_in(text)
    assert 'x.h5 is broken at frame 7 &lt;!&gt;' in text


@pytest.mark.usefixtures('undrawn')
def test_an_evaluation_has_the_same_page_without_curves(folder, tmp_path):
    """Without a history there is no curve and no epoch, but everything else."""
    spec = policy(data={'train_episodes': ['a', 'b']})
    episodes = load(folder, spec)
    text = report(tmp_path, spec, score(spec, episodes), episodes)
    assert headings(text) == [one for one in SECTIONS if one != 'Learning curves']
    assert '<title>Evaluation: better' in text and 'was trained on 2 episodes' in text
    assert 'epoch' not in text


@pytest.mark.usefixtures('undrawn')
def test_a_third_axis_has_its_unit_everywhere(folder, tmp_path):
    """angular_z: a panel in every figure, rad/s for every number, no arrow."""
    spec = policy(axes=('linear_x', 'linear_y', 'angular_z'))
    episodes = load(folder, spec)
    text = report(tmp_path, spec, score(spec, episodes), episodes, history=HISTORY)
    assert 'turning left (angular_z), rad/s' in text
    assert re.search(r'0\.\d{3} rad/s in turning', text)
    assert 'turning is not drawn' in text
    assert re.search(r'angular_z [+−]0\.\d\d rad/s', worst(text)[0])
    assert 'angular_z (1.0 is 0.5 rad/s)' in text


def test_one_validation_episode_one_frame_one_step(tmp_path):
    """The smallest case: window 1, chunk 1, one episode, one instruction."""
    write_episodes(tmp_path, ['go'] * 2)
    spec = policy(window=1, chunk=1)
    episodes = load(tmp_path, spec)
    text = report(
        tmp_path,
        spec,
        score(spec, episodes, instruction_swapped=None),
        episodes,
        history=HISTORY[:1],
    )
    assert headings(text) == SECTIONS
    assert 'The only validation episode' in text and 'The chunk has one step' in text
    assert 'trained for 1 epoch on 1 episode (' in text
    assert all(len(images_in(part)) == 1 for part in worst(text))
    assert text[: text.index('<h2>')].count('class="card ') == 4, (
        'no sentence about the instruction'
    )


def test_nan_and_missing_numbers_are_dashes(folder, tmp_path):
    """An axis that never moves has no R²; a NaN policy has no loss; an epoch may lack values."""
    spec = policy()
    episodes = load(folder, spec)

    def ruin(predicted):
        predicted[:] = np.nan

    scored = score(spec, episodes, change=ruin)
    assert scored.summary['policy']['loss'] is None
    text = report(
        tmp_path,
        spec,
        scored,
        episodes,
        history=[{'epoch': 0, 'train_loss': float('nan'), 'val_loss': None}, *HISTORY[1:]],
    )
    assert 'NOT better' in text
    assert not re.search(r'>[^<]*\b(nan|None)\b', re.sub(r'<svg.*?</svg>', '', text, flags=re.S))


@pytest.mark.usefixtures('undrawn')
def test_a_long_history_is_shortened_and_folded(folder, tmp_path):
    """Of 100 epochs about twenty rows, with the best one; all of them in a folded table."""
    spec = policy(metrics={'epoch': {'epoch': 37}})
    episodes = load(folder, spec)
    history = [
        {**HISTORY[0], 'epoch': epoch, 'val_loss': 1 + epoch / 1000} for epoch in range(100)
    ]
    text = report(tmp_path, spec, score(spec, episodes), episodes, history=history)
    learned = text[text.index('Learning curves') : text.index('Beside predictors')]
    short, whole = learned.split('<details>')
    rows = re.findall(r'<tr(?: class=highlighted)?><td>(\d+)</td>', short)
    assert len(rows) <= 23 and {'0', '37', '99'} <= set(rows)
    assert re.findall(r'<tr class=highlighted><td>(\d+)</td>', short) == ['37']
    assert re.findall(r'<tr><td>(\d+)</td>', whole) == [str(epoch) for epoch in range(100)]
    assert 'Every 5th of 100 epochs' in short and 'acc_gripper_act' in whole
    assert 'one with a lower val_loss could not be kept' in short


@pytest.mark.usefixtures('only_curves')
def test_the_marked_epoch_is_that_of_the_bundle(folder, tmp_path):
    """It is not the best one if that could not be saved; without a known epoch, no mark."""
    episodes = load(folder, policy())
    for row, sentence in (
        (HISTORY[-1], 'with the lowest val_loss'),
        (HISTORY[1], 'could not be kept'),
        (None, 'None is marked'),
    ):
        spec = policy(metrics={'epoch': row} if row else {})
        text = report(tmp_path, spec, score(spec, episodes), episodes, history=HISTORY)
        learned = text[text.index('Learning curves') : text.index('<details>')]
        assert re.findall(r'<tr class=highlighted><td>(\d+)</td>', learned) == (
            [str(row['epoch'])] if row else []
        )
        assert sentence in learned
        assert ('the policy of this report: epoch' in learned) == bool(row)


@pytest.mark.usefixtures('only_curves')
def test_with_padding_policy_and_baselines_have_the_same_loss(
    small_backbone, episode_folder, tmp_path
):
    """Six motion values for two axes: val_loss and the baselines are both `measure`'s loss."""
    from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
    from mobile_vla_ros.training.loop import train

    trained = train(
        ModelConfig(
            backbone=small_backbone, lora_r=4, head_hidden=32, head_layers=1, motion_dims=6
        ),
        DataConfig(data=str(episode_folder)),
        TrainConfig(out=str(tmp_path / 'out'), epochs=1, batch_size=4, accumulate=1, device='cpu'),
        log=lambda _: None,
    )
    [row], scored = trained.history, trained.scored
    measured = measure(scored.predicted, scored.actions, scored.real, trained.policy.actions)
    assert row['val_loss'] == pytest.approx(measured['loss'], rel=1e-6)
    assert 3 * row['val_loss_arm_act'] > 1.001 * row['val_loss'], 'the padding predicts something'
    text = report(tmp_path, trained.policy, scored, trained.episodes, history=trained.history)
    assert f'the policy of this report: epoch 0, {measured["loss"]:.4f}' in text
    still = measure(0 * scored.predicted, scored.actions, scored.real, trained.policy.actions)
    assert f'stand still: {still["loss"]:.4f}' in text


@pytest.mark.usefixtures('undrawn')
def test_skipped_and_near_identical_episodes_are_listed(folder, tmp_path):
    """With the reasons, the groups across the split, and the remedy."""
    spec = policy()
    loaded = load(folder, spec)
    across = [loaded.train[0].episode_id, 'two']
    alike = replace(
        loaded,
        left_out={'/some/where/bad.h5': 'verdict bad: <frozen>'},
        repeats=Repeats(4, [across, ['three', 'four']]),
    )
    text = report(tmp_path, spec, score(spec, loaded), alike)
    assert re.search(r'<td>bad\.h5</td><td class="text">verdict bad: &lt;frozen&gt;', text)
    assert '2 groups of episodes' in text and 'on both sides of the split: 1 of them' in text
    assert '<li>two</li>' in text and '<li>three, four</li>' in text
    assert '--group_duplicates' in text


@pytest.mark.usefixtures('undrawn')
def test_coverage_counts_episodes_minutes_and_idle_by_instruction(tmp_path):
    """For each side of the split, counted by hand."""
    spec = policy(window=1, chunk=1)
    still, moving = np.zeros(6), np.array([0.2, 0, 0, 0, 0, 0])

    def run(name: str, instruction: str, twists: list) -> Segment:
        twist = np.array(twists)
        return Segment(
            tmp_path / f'{name}.h5',
            name,
            instruction,
            np.arange(len(twist)),
            np.arange(len(twist)) * PERIOD_NS,
            sliding(len(twist), 1),
            twist[:, None],
            np.ones((len(twist), 1), bool),
            0 * twist,
        )

    episodes = EpisodeSet(
        [run('a', 'go', [moving] * 300 + [still] * 100), run('b', 'stay', [still] * 200)],
        [run('c', 'go', [moving] * 60)],
        {},
    )
    text = report(tmp_path, spec, score(spec, episodes), episodes)
    rows = [
        re.sub('<.*?>', ' ', row).split()
        for row in re.findall(r'<tr.*?</tr>', text[text.index('<h2>The episodes') :])
    ]
    assert ['all', '(2)', '2', '1.00', '50%', '1', '0.10', '0%'] in rows
    assert ['go', '1', '0.67', '25%', '1', '0.10', '0%'] in rows
    assert ['stay', '1', '0.33', '100%', '–', '–', '–'] in rows


def test_the_page_stays_small_with_thousands_of_windows(tmp_path):
    """Scatter plots become densities and long lines become pixels; missing files do not matter."""
    spec = policy(chunk=10)
    rng = np.random.default_rng(1)

    def run(number: int, frames: int) -> Segment:
        twist = rng.uniform(-0.5, 0.5, (frames, 6))
        ahead = np.stack([np.roll(twist, -step, 0) for step in range(spec.chunk)], 1)
        return Segment(
            tmp_path / 'gone.h5',
            f'episode{number}',
            f'instruction {number % 300}',
            np.arange(frames),
            np.arange(frames) * PERIOD_NS,
            sliding(frames),
            ahead,
            np.ones(ahead.shape[:2], bool),
            twist,
        )

    episodes = EpisodeSet(
        [run(number, 40) for number in range(300)],
        [run(1000 + number, 2500) for number in range(4)],
        {},
    )
    scored = score(spec, episodes)
    assert scored.summary['windows'] > 9000
    text = report(tmp_path, spec, scored, episodes, history=HISTORY * 300)
    assert len(text) < 3_000_000


@pytest.mark.usefixtures('undrawn')
def test_segments_of_one_episode_are_drawn_one_after_another(folder, tmp_path):
    """An episode with a gap is one line with a break, which the page explains."""
    spec = policy()
    episodes = load(folder, spec)
    first = episodes.val[0]
    halves = [
        replace(
            first,
            **{
                name: getattr(first, name)[part]
                for name in ('frames', 'time_ns', 'ahead', 'real', 'before')
            },
            windows=sliding(part.stop - part.start),
        )
        for part in (slice(0, 12), slice(15, 30))
    ]
    split = replace(episodes, val=halves)
    text = report(tmp_path, spec, score(spec, split), split)
    assert 'The only validation episode' in text
    assert f'{first.episode_id}, 2.7 s' in text and 'frames are missing there' in text


def test_labels_are_moved_apart_as_little_as_possible():
    """Neighbours get a minimum distance; labels that have it are not moved."""
    assert training_plots.spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert training_plots.spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])
    places = training_plots.spread([0.2, 0.21, 0.22, 0.3, 0.9], 0.06)
    assert np.diff(places).min() >= 0.06 - 1e-9 and places[-1] == pytest.approx(0.9)


def test_numbers_are_formatted_for_reading():
    """A true minus sign, no minus before zero, a dash for NaN."""
    assert training_page.number(-1.234, 2) == '−1.23'
    assert training_page.number(-0.001, 2) == '0.00'
    assert training_page.number(None) == training_page.number(float('inf')) == '–'


def test_the_same_training_gives_the_same_page(page, folder, tmp_path):
    """A report can be compared with an older one."""
    spec = policy()
    episodes = load(folder, spec)
    again = report(
        tmp_path,
        spec,
        score(spec, episodes),
        episodes,
        history=HISTORY,
        config={'epochs': 3, 'learning_rate': 1e-4, 'parameters': {'lora': 12345}},
    )
    assert again == page.read_text()
    assert '12,345' in again and 'learning_rate' in again and 'ab' * 32 in again


@needs_chromium
@pytest.mark.parametrize('width', [1120, 700])
def test_a_browser_shows_the_page_without_errors_or_overflow(page, tmp_path, width):
    """In Chromium the console has only the test's own line, and nothing scrolls sideways."""
    hook = (
        "var root = document.documentElement; console.log('asked ' + JSON.stringify({"
        'wide: root.scrollWidth - root.clientWidth, '
        'images: Array.from(document.images).every(i => i.naturalWidth > 0), '
        "figures: document.querySelectorAll('figure > svg').length}))"
    )
    profile = tmp_path / 'chromium'
    url = with_script(page, hook, tmp_path).as_uri()
    _, console = dump_dom(url, profile, f'--window-size={width},1400')
    assert len(console) == 1, console
    found = json.loads(re.search(r'asked (\{.*?\})', console[0])[1])
    assert found == {'wide': 0, 'images': True, 'figures': 7}


@pytest.mark.usefixtures('undrawn')
def test_a_real_training_gives_a_report(small_run, episode_folder, tmp_path):
    """From the loop's history, its best bundle and the real evaluation."""
    from mobile_vla_ros.evaluation.score import score as evaluate
    from mobile_vla_ros.model.bundle import load_bundle

    loaded = load_bundle(small_run / 'best')
    found = load_episodes(
        episode_folder, Sampling(), ['good', 'poor'], 0.2, 0, known=loaded.spec.data
    )
    history = json.loads((small_run / 'history.json').read_text())
    scored = evaluate(loaded, found.train, found.val)
    text = report(tmp_path, loaded.spec, scored, found, history=history)
    assert headings(text) == SECTIONS and len(images_in(text)) >= 4
    for sentence in scored.summary['policy']['verdict']:
        assert sentence.split(':')[0].replace("'", '&#39;') in text
