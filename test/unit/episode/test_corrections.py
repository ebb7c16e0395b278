"""Takeovers: labelled at their edges, found in an episode, and weighted in training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import huber_loss

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.dataset import SegmentDataset, collate
from mobile_vla_ros.data.segments import Sampling, read_episodes
from mobile_vla_ros.episode.records import Commands, Event
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing import corrections
from mobile_vla_ros.episode.timing.command_source import FRESH_NS, PATIENCE_NS, CommandLabeller
from mobile_vla_ros.episode.timing.corrections import CORRECTED, PLAIN, WRONG
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.safety.status import GuardStatus, State, StopReason
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.corrector import Corrector
from mobile_vla_ros.sim.suites import scene
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.flags import parse
from mobile_vla_ros.training.initial_policy import inherit_settings, initial_policy
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.training.optimise import Optimisation, adamw
from mobile_vla_ros.types import SOURCES, ActionSpec, Command, ImageSpec
from small_backbone import without_dropout
from small_episodes import CREATED_NS, encoded

pytestmark = pytest.mark.usefixtures('fresh_accelerate')

MS = 1_000_000
PERIOD_NS = 100 * MS
POLICY, TAKEOVER, UNKNOWN = (SOURCES[name] for name in ('policy', 'takeover', 'unknown'))


# --- the source of each command ---


def report(source, reason=StopReason.NONE):
    """Return a report of the guard; only its values count."""
    return GuardStatus(State.TELEOP, True, source, reason, 'a sentence for people')


def labelled(ticks, *, late=0, swapped=False):
    """
    Label the commands of a guard's ticks, (source, reason), one every 50 ms.

    The guard publishes the command, and 2 ms later its status: at every change and every 0.1 s.

    :param late: by how many commands the status of a tick is late.
    :param swapped: the status of a tick is received before its command, as after a stall.
    """
    labels, found, under_way = CommandLabeller(), [], []
    labels.status(report('none'), 1, 0)
    reported = None
    for tick, (source, reason) in enumerate(ticks):
        sent_ns = (tick + 1) * 50 * MS
        if (source, reason) != reported or tick % 2:
            reported = source, reason
            under_way.append((tick + late, report(source, reason), sent_ns + 2 * MS))
        arrivals = [
            (labels.status, (*status, sent_ns)) for due, *status in under_way if due <= tick
        ]
        under_way = [one for one in under_way if one[0] > tick]
        command = Command(np.full(6, float(tick)), sent_ns, sent_ns), sent_ns, sent_ns
        arrivals.insert(len(arrivals) if swapped else 0, (labels.command, command))
        for arrive, message in arrivals:
            arrive(*message)
            found += labels.ready(sent_ns)
    return found + labels.ready()


TICKS = (
    [('policy', StopReason.NONE)] * 4
    + [('takeover', StopReason.NONE)] * 5
    + [('takeover', StopReason.TELEOP_SILENT)] * 3
    + [('policy', StopReason.NONE)] * 4
)


@pytest.mark.parametrize(
    'order',
    [{}, {'swapped': True}, {'late': 1}],
    ids=['in order', 'status first', 'status after the next command'],
)
def test_the_first_command_of_a_takeover_is_labelled_takeover(order):
    """Regression: it is received before the status of its tick, so it had the previous label."""
    found = labelled(TICKS, **order)
    assert [one.command.source for one in found] == [source for source, _ in TICKS]
    assert [one.command.twist[0] for one in found] == list(range(len(TICKS)))


def test_a_takeover_starts_and_ends_with_an_event():
    """It ends when the person releases the control, not when the policy drives again."""
    assert {int(one.command.twist[0]): one.event for one in labelled(TICKS) if one.event} == {
        4: 'begin',
        9: 'end',
    }


def test_a_silent_guard_labels_no_command():
    """Its last status does not apply to commands a second and a half later."""
    labels = CommandLabeller()
    labels.status(report('policy'), 1, 0)
    for sent_ns in (2, 2 + FRESH_NS):
        labels.command(Command(np.zeros(6), sent_ns, sent_ns), sent_ns, 0)
    assert labels.ready(PATIENCE_NS - 1) == []
    assert [one.command.source for one in labels.ready(PATIENCE_NS)] == ['policy', 'unknown']
    labels.command(Command(np.zeros(6), 1, 1), 1, FRESH_NS + 1)
    assert labels.ready(FRESH_NS + 1)[0].command.source == 'policy'  # no status is awaited


# --- the corrections in an episode ---


def commands(sources, times_ns=None):
    """Return commands every 100 ms, each with its number as vx."""
    count = len(sources)
    times = np.arange(count) * PERIOD_NS if times_ns is None else np.asarray(times_ns)
    twist = np.zeros((count, 6))
    twist[:, 0] = np.arange(count) / 100
    return Commands(twist, times, times, np.array(sources, np.uint8), times)


def test_the_second_before_a_takeover_is_marked_wrong():
    """From one second before its first command; the silence after it is unmarked."""
    driven_by = commands([POLICY] * 15 + [TAKEOVER] * 8 + [POLICY] * 3)
    events = [
        Event('takeover', number * PERIOD_NS, text, number * PERIOD_NS)
        for number, text in ((15, 'begin'), (20, 'end'))
    ]
    (one,) = corrections.takeovers(driven_by, events)
    assert (one.begin_ns, one.end_ns, one.mistake_ns) == tuple(
        number * PERIOD_NS for number in (15, 20, 5)
    )
    assert corrections.kinds(driven_by, events).tolist() == (
        [PLAIN] * 5 + [WRONG] * 10 + [CORRECTED] * 5 + [WRONG] * 3 + [PLAIN] * 3
    )


def test_without_events_takeovers_are_found_by_source():
    """In older episodes; two takeovers share no second."""
    driven_by = commands([POLICY] * 3 + [TAKEOVER] * 2 + [POLICY] * 4 + [TAKEOVER] * 2)
    first, second = corrections.takeovers(driven_by)
    assert (
        first.seconds == 0.2 and second.seconds == 0.1
    )  # the last one ends with its last command
    assert second.mistake_ns == first.end_ns
    assert corrections.kinds(driven_by).tolist() == (
        [WRONG] * 3 + [CORRECTED] * 2 + [WRONG] * 4 + [CORRECTED] * 2
    )


def test_the_guard_s_own_stops_are_marked_wrong():
    """Beside a policy's commands an unknown source is a fault's zero; alone it is plain."""
    assert corrections.kinds(commands([POLICY, UNKNOWN])).tolist() == [PLAIN, WRONG]
    assert corrections.kinds(commands([UNKNOWN, UNKNOWN])).tolist() == [PLAIN, PLAIN]


# --- weights in training ---


BOXES = 'go to the red box', 'go to the blue box'


def write_corrected(folder, number=0, *, corrected=range(14, 20)):
    """Write an episode of 30 frames at 10 Hz in which a person takes over for some commands."""
    created_ns = CREATED_NS + number * 60_000_000_000
    writer = EpisodeWriter(folder, EpisodeInfo(BOXES[number % 2]), created_ns)
    for index in range(30):
        now_ns = created_ns + index * PERIOD_NS
        writer.add_frame(encoded(index * 5 + number, size=(56, 56)), now_ns, now_ns)
        source = 'takeover' if index in corrected else 'policy'
        writer.add_command(
            Command(
                [np.sin(index / 3) / 2, np.cos(index + number) / 4, 0, 0, 0, 0],
                now_ns,
                now_ns,
                source,
            )
        )
        if corrected and index in (corrected[0], corrected[-1] + 1):
            writer.add_event('takeover', now_ns, 'begin' if index == corrected[0] else 'end')
    return writer.close('success')


def hand_weights(weight):
    """Return the weight of each step of each frame's chunk, (30, 10), computed by hand."""
    by_command = [
        weight if 14 <= index < 20 else 0 if 4 <= index < 14 else 1 for index in range(30)
    ]
    return np.array(
        [
            [by_command[frame + step] if frame + step < 30 else 0 for step in range(10)]
            for frame in range(30)
        ],
        np.float32,
    )


def test_each_step_of_a_chunk_has_the_weight_of_its_command(tmp_path):
    """In a frame of the wrong second, the steps within the takeover still count."""
    path = write_corrected(tmp_path)
    loaded = read_episodes([path], Sampling())
    assert [one.seconds for one in loaded.takeovers[path.stem]] == [0.6]
    data = SegmentDataset(
        loaded.segments,
        ActionSpec(),
        ImageSpec(56, (0, 0, 0), (1, 1, 1)),
        18,
        {BOXES[0]: torch.tensor([4])},
        corrections=5.0,
    )
    expected = hand_weights(5.0)
    seen = 0
    for index, (_, start, stop) in enumerate(data.pieces):
        rows = np.arange(start, stop)[:, None] + np.arange(4)
        assert np.array_equal(data[index].weight, expected[rows])
        assert data.weight_of(index) == expected[rows].sum()
        seen += len(rows)
    assert seen == 27


def test_without_the_flag_an_item_has_no_weight(tmp_path):
    """Without --corrections all losses stay unchanged."""
    loaded = read_episodes([write_corrected(tmp_path)], Sampling())
    data = SegmentDataset(
        loaded.segments,
        ActionSpec(),
        ImageSpec(56, (0, 0, 0), (1, 1, 1)),
        18,
        {BOXES[0]: torch.tensor([4])},
    )
    assert 'weight' not in collate([data[0], data[1]])
    assert [data.weight_of(index) for index in (0, 1)] == [data.real_steps(i) for i in (0, 1)]


def test_a_step_divides_by_the_sum_of_the_weights(tmp_path, small_backbone):
    """Gradient and loss of one step equal those of the weighted mean, written out."""
    loaded = read_episodes([write_corrected(tmp_path)], Sampling())
    config = TrainConfig(out='', batch_size=1, accumulate=2, grad_clip=1e6)
    model = ModelConfig(
        backbone=without_dropout(small_backbone, tmp_path / 'backbone'),
        lora_r=2,
        lora_dropout=0.0,
        head_hidden=16,
        head_layers=1,
    )
    initial = initial_policy(model, DataConfig(data=''), config, ActionSpec())
    data = SegmentDataset(
        loaded.segments,
        ActionSpec(),
        initial.image,
        18,
        {BOXES[0]: torch.tensor([4, 5])},
        corrections=3.0,
    )
    network = initial.network
    network.train()
    top = bottom = 0.0
    weights = torch.from_numpy(hand_weights(3.0))
    for index, (_, start, stop) in enumerate(data.pieces):
        batch = collate([data[index]])
        motion, _ = network(
            batch['frames'],
            batch['text_ids'],
            batch['text_lengths'],
            batch['frame_counts'],
            batch['windows'],
        )
        own = weights[torch.arange(start, stop)[:, None] + torch.arange(4)]
        top = top + (huber_loss(motion, batch['actions'], reduction='none').mean(-1) * own).sum()
        bottom += float(own.sum())
    (top / bottom).backward()
    wanted = {
        name: value.grad.clone()
        for name, value in network.named_parameters()
        if value.grad is not None
    }
    network.zero_grad()
    optimisation = Optimisation(
        Accelerator(cpu=True),
        network,
        adamw(network, config),
        data,
        config,
        10,
        lambda _: None,
    )
    got = {}
    optimisation.optimizer.step = lambda: got.update(
        {
            name: value.grad.clone()
            for name, value in network.named_parameters()
            if value.grad is not None
        }
    )
    optimisation._count_skipped = lambda _: None
    sums = optimisation.step(
        [(0, 1), (1, 2)], iter([collate([data[0]]), collate([data[1]])]), 0, 'step 0'
    )
    assert (
        sums['count']
        == bottom
        == float(hand_weights(3.0)[np.arange(27)[:, None] + np.arange(4)].sum())
    )
    assert sums['loss'] == pytest.approx(top.item(), rel=1e-5)
    for name, expected in wanted.items():
        torch.testing.assert_close(got.pop(name), expected, rtol=1e-4, atol=1e-7)
    assert not any(value.any() for value in got.values())  # of the dummy, which has no weight


def small(backbone, folder, out, **data):
    """Return the configurations of a short run."""
    return (
        ModelConfig(backbone=backbone, lora_r=4, head_hidden=32, head_layers=1),
        DataConfig(data=str(folder), **data),
        TrainConfig(out=str(out), epochs=1, batch_size=4, accumulate=1, device='cpu'),
    )


def test_the_log_and_the_bundle_have_the_corrections(tmp_path, small_backbone):
    """The number of takeovers, seconds and episodes."""
    for number in range(4):
        write_corrected(tmp_path / 'episodes', number)
    trained = train(
        *small(small_backbone, tmp_path / 'episodes', tmp_path / 'out', corrections=5.0),
        log=lambda _: None,
    )
    log = (tmp_path / 'out' / 'train.log').read_text()
    assert '3 corrections of 1.8 s in 3 of 3 training episodes: their targets weigh 5 times' in log
    assert trained.policy.data['corrections'] == {
        'weight': 5.0,
        'takes': 3,
        'takeovers': 3,
        'seconds': 1.8,
    }


def test_corrections_without_takeovers_are_refused(
    tmp_path, small_backbone, episode_folder, capsys
):
    """Exit status 2, and nothing is written."""
    out = tmp_path / 'out'
    assert (
        main(
            [
                'train',
                '--backbone',
                small_backbone,
                '--data',
                str(episode_folder),
                '--out',
                str(out),
                '--corrections',
                '5',
                '--device',
                'cpu',
            ]
        )
        == 2
    )
    assert 'there are no corrections to learn from; got --corrections 5' in capsys.readouterr().err
    assert not out.exists()


# --- continuing from a policy ---


def test_training_starts_with_the_weights_of_the_policy(small_run):
    """Adapters, head and action token; untrained weights are those of its backbone."""
    policy = str(small_run / 'best')
    model, data = inherit_settings(ModelConfig(init=policy), DataConfig(data=''))
    assert (model.lora_r, model.head_hidden, data.rate_hz) == (4, 32, 10.0)
    initial = initial_policy(model, data, TrainConfig(out=''), ActionSpec())
    loaded = load_bundle(small_run / 'best', merge=False)
    known = loaded.network.state_dict()
    assert {
        name: torch.equal(value, known[name])
        for name, value in initial.network.state_dict().items()
    } == dict.fromkeys(known, True)
    trainable = {name for name, value in initial.network.named_parameters() if value.requires_grad}
    assert trainable and all(
        'lora' in name or name.startswith(('head.', 'action_token')) for name in trainable
    )
    assert initial.record['init']['policy'] == policy


def test_settings_that_contradict_the_policy_are_refused_together(small_run):
    """Also a flag with the default value, since it was given."""
    policy = str(small_run / 'best')
    with pytest.raises(UserError) as caught:
        parse(
            [
                '--init',
                policy,
                '--data',
                'x',
                '--out',
                'y',
                '--window',
                '7',
                '--lora_r',
                '32',
                '--rate_hz=10',
            ]
        )
    assert 'lora_r is 32, and the policy has 4; window is 7, and the policy has 4' in str(
        caught.value
    )
    assert 'rate_hz' not in str(caught.value)


def test_a_policy_continues_to_learn_from_its_corrections(small_run, tmp_path):
    """The new bundle has the old one's axes and scale, and names the old one."""
    for number in range(3):
        write_corrected(tmp_path / 'episodes', number)
    old = load_bundle(small_run / 'best').spec
    _, data, config = small('', tmp_path / 'episodes', tmp_path / 'out', corrections=5.0)
    policy = str(small_run / 'best')
    trained = train(replace(ModelConfig(), init=policy), data, config, log=lambda _: None)
    assert trained.policy.actions == old.actions and trained.policy.head == old.head
    assert trained.policy.data['init'] == {
        'policy': policy,
        'fingerprint': old.data['fingerprint'],
    }
    assert json.loads((tmp_path / 'out' / 'history.json').read_text())[0]['epoch'] == 0


# --- the corrector in the arena ---


def driven(proposed, index=8):
    """Drive a scene with corrected proposals; return the arena and the corrector."""
    arena = Arena(16, 16)
    arena.reset(scene('disturbed', index))
    corrector = Corrector(arena.scene)
    while arena.state == 'running':
        twist = proposed(arena, corrector)
        right = corrector.command(arena.pose, arena.velocity, twist, arena.time_ns)
        arena.step(twist if right is None else right, 50 * MS)
    return arena, corrector


def test_a_policy_that_collides_is_corrected_until_the_end():
    """It always drives straight ahead; with corrections the scene succeeds."""
    arena, corrector = driven(lambda *_: np.array([0.5, 0, 0, 0, 0, 0.0]))
    assert arena.state == 'success' and corrector.takeovers >= 1


def test_a_policy_that_drives_like_the_expert_is_not_corrected():
    """There is no takeover from correct commands."""
    arena, corrector = driven(
        lambda arena, one: one._expert.command(arena.pose, arena.velocity, arena.time_ns)
    )
    assert arena.state == 'success' and corrector.takeovers == 0
