"""Coverage of a set: directions, starts, near-identical episodes, and advice."""

import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from many_episodes import KEYS
from mobile_vla_ros.episode.catalog import coach, coverage
from mobile_vla_ros.episode.catalog.index_table import EpisodeRow
from mobile_vla_ros.episode.timing.command_rule import ASSUMED, HOLDS, CommandLog, CommandRule

SECOND = 1_000_000_000


def pressed(keys: str, step_s: float = 0.2, speed: float = 1.15, begin_s: float = 0.0):
    """Return receipt times and twists of one command per key press."""
    received_ns = ((begin_s + np.arange(len(keys)) * step_s) * SECOND).astype(np.int64)
    twist = np.zeros((len(keys), 6))
    twist[:, :2] = np.array([KEYS[key] for key in keys]).reshape(-1, 2) * speed
    return received_ns, twist


def signature(keys: str, **how) -> np.ndarray:
    """Return the signature of some key presses."""
    return coverage.signature(CommandLog(*pressed(keys, **how), ASSUMED))


def random_keys(rng, count: int = 18) -> str:
    """Return key presses as in the reference run: one row at rest, then driving."""
    return ' ' + ''.join(rng.choice(list('wwwaadqe'), count - 1))


def test_motion_counts_the_seconds_in_each_direction():
    """Diagonals count twice; a command counts until the base stops, if it does."""
    found = coverage.motion(CommandLog(*pressed('wwqa  s'), ASSUMED), 0, int(1.4 * SECOND))
    assert found['forward'] == pytest.approx(0.6) and found['left'] == pytest.approx(0.4)
    assert found['back'] == pytest.approx(0.2) and found['right'] == 0
    assert found['moving'] == pytest.approx(1.0)
    received_ns, twist = pressed('ww', step_s=3.0)
    twist[:, 5] = -0.4
    found = coverage.motion(CommandLog(received_ns, twist, ASSUMED), 0, 10 * SECOND)
    assert found['turn_right'] == found['moving'] == pytest.approx(1.0)
    held = coverage.motion(CommandLog(received_ns, twist, CommandRule(HOLDS)), 0, 10 * SECOND)
    assert held['moving'] == pytest.approx(10.0)
    empty = CommandLog(np.zeros(0, np.int64), np.zeros((0, 6)), ASSUMED)
    assert set(coverage.motion(empty, 0, SECOND).values()) == {0.0}


def test_a_signature_ignores_pauses_but_not_speed():
    """A late start and pauses at both ends make no difference; the speed does."""
    plain = signature('wqaawwd')
    assert plain.shape == (7, 3), '0.2 s per key'
    np.testing.assert_allclose(signature('wqaawwd ', begin_s=77.03), plain, atol=1e-4)
    np.testing.assert_allclose(signature('   wqaawwd '), plain, atol=1e-4)
    np.testing.assert_allclose(plain[1], [1.15, 1.15, 0], atol=1e-4)
    np.testing.assert_allclose(signature('wqaawwd', speed=0.5), plain * 0.5 / 1.15, atol=1e-4)
    assert signature('    ').shape == signature('').shape == (0, 3)


def test_a_signature_of_a_broken_clock_stays_small():
    """A clock that jumps by years, or back, adds ten seconds of zeros; NaN counts as zero."""
    received_ns, twist = pressed('wwaadd')
    received_ns[3:] += 10**18
    twist[1, 0] = np.nan
    for rule in (ASSUMED, CommandRule(HOLDS)):
        assert 50 < len(coverage.signature(CommandLog(received_ns, twist, rule))) < 70
    received_ns[4] -= 10**18
    assert np.isfinite(coverage.signature(CommandLog(received_ns, twist, ASSUMED))).all()


@pytest.mark.parametrize('rate_hz', [2.0, 5.0, 10.0])
def test_sixteen_distinct_episodes_of_231_are_found(rate_hz):
    """The data of the reference run, imported at any rate."""
    rng = np.random.default_rng(7)
    distinct = [random_keys(rng) for _ in range(16)]
    of = np.concatenate([np.arange(16), rng.integers(0, 16, 231 - 16)])
    rng.shuffle(of)
    groups = coverage.near_identical([signature(distinct[one], step_s=1 / rate_hz) for one in of])
    assert sorted(index for group in groups for index in group) == list(range(231))
    assert sorted(groups) == sorted(np.flatnonzero(of == one).tolist() for one in range(16))


def test_noise_is_near_and_other_drives_are_far():
    """A little noise is near; one more side step, half the speed or a mirrored drive is not."""
    rng = np.random.default_rng(1)
    one = signature('wwwwqqwwwwwwwwww')
    noisy = one + rng.normal(0, 0.01, one.shape).astype(np.float32)
    others = [signature('wwwwqqwwaawwwwww'), one / 2, signature('wwwweewwwwwwwwww')]
    assert coverage.near_identical([one, *others, noisy]) == [[0, 4]]
    assert coverage.near_identical([]) == []
    assert coverage.near_identical([np.zeros((0, 3), np.float32)] * 3) == []


@settings(max_examples=30)
@given(st.lists(st.text('wad q', min_size=1, max_size=12), max_size=30), st.integers(0, 99))
def test_the_cells_miss_no_group(presses, seed):
    """The groups equal those from comparing each episode with the first of every group."""
    rng = np.random.default_rng(seed)
    signatures = [
        one + rng.normal(0, 0.02, one.shape).astype(np.float32) for one in map(signature, presses)
    ]
    scale, expected = coverage.usual_speed(signatures), []
    for index, one in enumerate(signatures):
        if len(one):
            home = next(
                (group for group in expected if coverage._near(signatures[group[0]], one, scale)),
                None,
            )
            if home is None:
                expected.append([index])
            else:
                home.append(index)
    assert coverage.near_identical(signatures) == [g for g in expected if len(g) > 1]


@pytest.mark.parametrize('kind', ['all distinct', 'sixteen'])
def test_two_thousand_episodes_are_grouped_in_seconds(kind):
    """Near-linear: comparing every pair one by one would take minutes."""
    rng = np.random.default_rng(3)
    distinct = [signature(random_keys(rng, 60)) for _ in range(16 if kind == 'sixteen' else 2000)]
    signatures = [distinct[index % len(distinct)] for index in range(2000)]
    began = time.process_time()
    groups = coverage.near_identical(signatures)
    assert time.process_time() - began < 4
    assert len(groups) == (16 if kind == 'sixteen' else 0)


def room_image(shift: int, light: float = 1.0, kind: str = 'JPEG') -> bytes:
    """Return an encoded image of a room from one of many places."""
    rng = np.random.default_rng(5)
    room = rng.integers(0, 200, (6, 40, 3)).repeat(24, axis=0).repeat(24, axis=1)
    noise = np.random.default_rng(shift).normal(0, 4, (144, 192, 3))
    visible = np.clip(room[:, shift : shift + 192] * light + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(visible).save(buffer, kind)
    return buffer.getvalue()


def test_places_are_distinguished_by_the_first_image():
    """Light and noise make no difference; another place does; black images are one place."""
    here = [
        coverage.start_view(room_image(0, light, kind))
        for light in (0.7, 1.0, 1.2)
        for kind in ('JPEG', 'PNG')
    ]
    assert coverage.distinct_views(here) == 1
    elsewhere = [coverage.start_view(room_image(shift)) for shift in (150, 300, 450)]
    buffer = io.BytesIO()
    Image.new('RGB', (64, 48), (9, 9, 9)).save(buffer, 'PNG')
    dark = [coverage.start_view(buffer.getvalue())] * 2
    assert coverage.distinct_views([*here, *elsewhere, *dark]) == 5
    assert coverage.distinct_views([]) == 0


def balanced(count: int = 60) -> tuple[list[EpisodeRow], dict]:
    """Return rows and traces of a complete set."""
    rng = np.random.default_rng(11)
    rows, traces = [], {}
    for index in range(count):
        side = ('left', 'right')[index % 2]
        row = EpisodeRow(
            f'{index:03}.h5',
            f'{index:03}',
            f'stop to the {side} of the red box',
            'success',
            duration_s=10.0,
            frames=100,
            commands=200,
            verdict='good',
            moving_s=9.0,
            forward_s=8.0,
            **{f'{name}_s': 2.0 for name in ('left', 'right')},
        )
        place = rng.normal(size=144).astype(np.float32)
        rows.append(row)
        traces[row.name] = (signature(random_keys(rng, 40)), place / np.linalg.norm(place))
    return rows, traces


def changed(rows: list[EpisodeRow], count: int, **values) -> list[EpisodeRow]:
    """Return the rows with other values in the first ``count``."""
    return [
        EpisodeRow(**vars(row) | values) if index < count else row
        for index, row in enumerate(rows)
    ]


def test_a_complete_set_gets_no_advice():
    """Sixty varied, balanced, good episodes."""
    rows, traces = balanced()
    found = coach.survey(rows, traces)
    assert coach.advise(found) == []
    assert (found.distinct, found.driven, found.starts) == (60, 60, 60)
    assert found.words == {'left': 30, 'right': 30} and found.minutes == pytest.approx(10)
    assert found.instructions == {
        'stop to the left of the red box': (30, pytest.approx(5)),
        'stop to the right of the red box': (30, pytest.approx(5)),
    }


@pytest.mark.parametrize(
    ('count', 'values', 'words', 'have', 'want'),
    [
        (
            20,
            {'verdict': 'bad', 'reasons': ('3 frames: nothing',)},
            '20 episodes again that cannot be trained on (most often: … frames: nothing)',
            40,
            60,
        ),
        (
            56,
            {'instruction': 'stop to the left of the red box'},
            '56 episodes more with "right" in the instruction',
            2,
            58,
        ),
        (
            55,
            {'instruction': 'go to the blue ball'},
            '8 episodes more of "stop to the left of the red box"',
            2,
            10,
        ),
        (60, {'right_s': 0.5}, '90 seconds more of driving to the right', 0.5, 2.0),
        (60, {'turn_left_s': 3.0}, '3.0 minutes more of turning right', 0, 3.0),
        (60, {'left_s': 0.1, 'right_s': 0.1}, 'of steering to either side', 0.022, 0.1),
        (40, {'outcome': 'failure'}, '74 episodes more that succeed', 20, 94),
        (45, {'outcome': 'unknown'}, 'episodes that you end with an outcome', 15, 30),
        (
            60,
            {'verdict': 'poor', 'reasons': ('0.71 s without a frame',)},
            '30 episodes of verdict good (most often: … s without a frame)',
            0,
            30,
        ),
        (60, {'moving_s': 4.0}, '60% of the time it has no command to move', 0.6, 0.2),
    ],
)
def test_each_lack_gives_advice_with_a_target(count, values, words, have, want):
    """A planted lack gives its own sentence, in first place."""
    rows, traces = balanced()
    advice = coach.advise(coach.survey(changed(rows, count, **values), traces))
    assert words in advice[0].sentence, advice
    assert (advice[0].have, advice[0].want) == (pytest.approx(have), pytest.approx(want))


def test_repeats_and_a_single_starting_place_are_reported():
    """Sixty episodes, four of them distinct, from one place: both are reported, repeats first."""
    rows, traces = balanced()
    kept = list(traces.values())
    traces = {name: (kept[index % 4][0], kept[0][1]) for index, name in enumerate(traces)}
    found = coach.survey(rows, traces)
    repeats, starts = coach.advise(found)
    assert [len(group) for group in found.near_identical] == [15] * 4
    assert repeats.sentence.startswith(
        '26 episodes that go another way; of 60 episodes 4 are distinct'
    )
    assert starts.sentence.startswith('14 episodes that start from other places')


def test_at_most_five_sentences_the_most_valuable_first():
    """For a set that lacks everything."""
    rows, traces = balanced(20)
    rows = changed(
        rows,
        20,
        instruction='stop to the left of the red box',
        right_s=0.0,
        outcome='unknown',
        moving_s=3.0,
        verdict='poor',
    )
    traces = {row.name: traces[rows[0].name] for row in rows}
    advice = coach.advise(coach.survey(rows, traces))
    assert len(advice) == coach.MAX_ADVICE
    assert [one.value for one in advice] == sorted((one.value for one in advice), reverse=True)
    assert coach.advise(coach.survey([], {}))[0].sentence.startswith(
        '50 episodes more of any kind'
    )
