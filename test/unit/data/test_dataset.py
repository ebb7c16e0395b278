"""The training dataset: pieces of segments, complete, in order and reproducible."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from damaged_files import break_frame
from generators import seeded
from made_segments import SPEC, segment_of, twists
from mobile_vla_ros.data.augment import Augmentation, mirror_instruction
from mobile_vla_ros.data.dataset import SegmentDataset, collate
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.preprocess import normalise, resize
from mobile_vla_ros.data.segments import Sampling, load_segments
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.types import Command, ImageSpec
from small_episodes import CREATED_NS

IMAGE = ImageSpec(16, (0, 0, 0), (1, 1, 1))
ALL = Augmentation(mirror=True, light=0.3, colour=0.3, shift=0.2)
INSTRUCTION = 'go to the left box'
WORDS = {INSTRUCTION: torch.zeros(3), mirror_instruction(INSTRUCTION): torch.ones(3)}


def segment_in_file(folder, count=30, rate_hz=10):
    """Write an episode of noise that drives all the time; return its segment."""
    rng = np.random.default_rng(0)
    writer = EpisodeWriter(folder, EpisodeInfo(INSTRUCTION), CREATED_NS)
    for index in range(count):
        now_ns = CREATED_NS + index * 1_000_000_000 // rate_hz
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(buffer, 'JPEG')
        writer.add_frame(buffer.getvalue(), now_ns, now_ns)
        writer.add_command(
            Command([0.1 + index / 100, 0.05, 0, 0, 0, 0], now_ns, now_ns, 'teleop')
        )
    segments, skipped = load_segments(
        [writer.close('success')], Sampling(), ['good', 'poor', 'bad']
    )
    assert len(segments) == 1, skipped
    return segments[0]


@pytest.mark.parametrize('rate_hz', [10, 12, 25])
def test_an_item_has_the_windows_that_driving_would_plan_with(tmp_path, rate_hz):
    """The same images in the same order, at any rate of the camera, each encoded once."""
    segment = segment_in_file(tmp_path, 3 * rate_hz, rate_hz)
    buffer, driven = FrameBuffer(10.0, 4), {}
    with Episode.open(segment.path) as episode:
        for index in range(len(episode)):
            buffer.add(episode.frame(index, IMAGE.size))
            shown = buffer.window()
            if shown is not None:
                images = np.stack([resize(frame.image, IMAGE) for frame in shown])
                driven[shown[-1].stamp_ns] = normalise(images, IMAGE)
    data = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS)
    batch = collate([data[index] for index in range(len(data))])
    ends = segment.time_ns[segment.windows[:, -1]]
    assert len(batch['windows']) == len(ends) >= 26
    for end_ns, window in zip(ends.tolist(), batch['frames'][batch['windows']], strict=True):
        assert torch.equal(window, driven[end_ns])
    assert max(batch['frame_counts']) <= 9
    assert data.cache.decoded == len(segment.frames) == {10: 30, 12: 36, 25: 47}[rate_hz]


def same(one, other) -> bool:
    return (
        one.broken == other.broken
        and torch.equal(one.frames, other.frames)
        and torch.equal(one.text_ids, other.text_ids)
        and torch.equal(one.actions, other.actions)
        and torch.equal(one.real, other.real)
    )


def test_every_window_is_in_exactly_one_piece():
    """Cutting segments into pieces loses no window and repeats none."""
    segment = segment_of(twists(np.arange(23) / 100, np.zeros(23)))
    data = SegmentDataset([segment], SPEC, IMAGE, 9, {})
    covered = [window for _, start, stop in data.pieces for window in range(start, stop)]
    assert covered == list(range(20))
    assert max(stop - start for _, start, stop in data.pieces) == 6, 'windows of 9 frames'
    assert (data.windows, data.thinned) == (20, 0)


def test_an_item_is_a_function_of_its_index_and_seed(tmp_path):
    """A resumed run repeats every item bit by bit, in any order and from any thread."""
    data = SegmentDataset([segment_in_file(tmp_path)], SPEC, IMAGE, 9, WORDS, ALL)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    wanted = [(index, seed) for seed in range(6) for index in range(len(data))]
    first = {(index, seed): data.item(index, seeded(seed)) for index, seed in wanted}
    assert torch.equal(torch.get_rng_state(), before), 'the global generator was used'
    torch.manual_seed(2)
    fresh = SegmentDataset([data.segments[0]], SPEC, IMAGE, 9, WORDS, ALL)
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(lambda key: fresh.item(key[0], seeded(key[1])), reversed(wanted))
        for key, item in zip(reversed(wanted), again, strict=True):
            assert same(item, first[key])
    for index in range(len(data)):
        assert len({first[index, seed].frames.numpy().tobytes() for seed in range(6)}) == 6


def test_without_a_generator_an_item_is_not_augmented(tmp_path):
    """Validation sees no augmentation, whatever the settings of the dataset."""
    segment = segment_in_file(tmp_path)
    configured, plain = (
        SegmentDataset([segment], SPEC, IMAGE, 9, WORDS, augmentation)
        for augmentation in (ALL, None)
    )
    for index in range(len(plain)):
        assert same(configured[index], plain[index])
        assert same(configured[index], plain.item(index, seeded(0)))


def test_mirrored_pieces_reach_the_training(tmp_path):
    """With `mirror`, about half of the pieces are mirrored: images, axes and words."""
    data = SegmentDataset(
        [segment_in_file(tmp_path)], SPEC, IMAGE, 18, WORDS, Augmentation(mirror=True)
    )
    plain = data[0]
    mirrored = 0
    for seed in range(40):
        item = data.item(0, seeded(seed))
        flipped = torch.equal(item.frames, plain.frames.flip(3))
        assert flipped or torch.equal(item.frames, plain.frames)
        sign = torch.tensor([1.0, -1.0 if flipped else 1.0])
        assert torch.equal(item.actions, plain.actions * sign)
        instruction = mirror_instruction(INSTRUCTION) if flipped else INSTRUCTION
        assert torch.equal(item.text_ids, WORDS[instruction])
        mirrored += flipped
    assert 10 < mirrored < 30
    assert data.instructions == [INSTRUCTION] * len(data)


def test_real_steps_are_counted_without_an_image(tmp_path):
    """The loss is divided by their number before any frame is read."""
    segment = segment_in_file(tmp_path)
    data = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS)
    counted = [int(item.real.sum()) for item in (data[index] for index in range(len(data)))]
    segment.path.unlink()
    fresh = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS)
    assert [fresh.real_steps(index) for index in range(len(fresh))] == counted
    assert len(set(counted)) > 1
    assert fresh.cache.decoded == 0


@pytest.mark.parametrize('part', ['image', 'row'])
def test_a_broken_frame_breaks_only_its_pieces(tmp_path, part):
    """The frame with overwritten bytes is named, its pieces have no weight, the others train."""
    segment = segment_in_file(tmp_path)
    whole = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS, ALL)
    before = [whole.item(index, seeded(index)) for index in range(len(whole))]
    break_frame(segment.path, 13, part)
    with Episode.open(segment.path) as episode:
        lost = [index for index in range(30) if _is_broken(episode, index)]
    assert 13 in lost and len(lost) < 20
    data = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS, ALL)
    after = [data.item(index, seeded(index)) for index in range(len(data))]
    broken = [
        index
        for index, (_, start, stop) in enumerate(data.pieces)
        if set(lost) & set(range(start, stop + 3))
    ]
    assert 0 < len(broken) < len(data)
    for index, item in enumerate(after):
        if index not in broken:
            assert same(item, before[index])
            continue
        assert not item.real.any() and not item.frames.any()
        assert item.frames.shape == before[index].frames.shape
        _, start, stop = data.pieces[index]
        first = min(set(lost) & set(range(start, stop + 3)))
        assert f'{segment.path} is broken at frame {first};' in item.broken
    batch = collate(after)
    assert batch['broken'] == [after[index].broken for index in broken]
    assert int(batch['real'].sum()) == sum(
        data.real_steps(index) for index in range(len(data)) if index not in broken
    )


def test_an_episode_that_lost_its_end_is_named(tmp_path):
    """If the file has fewer frames than before, the first missing one is named."""
    segment = segment_in_file(tmp_path)
    for row in range(20, 30):
        break_frame(segment.path, row, 'row')
    with Episode.open(segment.path) as episode:
        left = len(episode)
    assert left == 20
    data = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS)
    broken = {start: data[index].broken for index, (_, start, _) in enumerate(data.pieces)}
    assert broken[0] == ''
    assert (
        f'{segment.path} is broken at frame {max(left, data.pieces[-1][1])};'
        in broken[24 - 24 % 6]
    )


def _is_broken(episode: Episode, index: int) -> bool:
    try:
        episode.frame(index)
    except UserError:
        return True
    return False


def test_a_deleted_file_is_named(tmp_path):
    """A disk that disappears during a training run does not end the run."""
    segment = segment_in_file(tmp_path)
    data = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS)
    segment.path.unlink()
    assert f'no episode at {segment.path}' in data[0].broken
    assert collate([data[0]])['broken'] == [data[0].broken]


def test_threads_find_the_same_pieces_broken(tmp_path):
    """A readable frame stays cached when a neighbouring piece decodes it with a broken one."""
    segment = segment_in_file(tmp_path)
    break_frame(segment.path, 13, 'image')
    for _ in range(10):
        data = SegmentDataset([segment], SPEC, IMAGE, 5, WORDS)
        with ThreadPoolExecutor(8) as pool:
            broken = [bool(item.broken) for item in pool.map(data.__getitem__, range(len(data)))]
        assert broken == [13 in range(start, stop + 3) for _, start, stop in data.pieces]


def test_a_frame_is_decoded_once_per_pass(tmp_path):
    """Pieces and threads share frames: each is decoded once if the cache is large enough."""
    segment = segment_in_file(tmp_path)
    data = SegmentDataset([segment], SPEC, IMAGE, 5, WORDS)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            list(pool.map(data.__getitem__, range(len(data))))
            assert data.cache.decoded == 30


def test_datasets_may_share_decoded_frames(tmp_path):
    """A control over the same episodes decodes nothing again."""
    segment = segment_in_file(tmp_path)
    cache = FrameCache(IMAGE)
    one, other = (SegmentDataset([segment], SPEC, IMAGE, 9, WORDS, cache=cache) for _ in range(2))
    for index in range(len(one)):
        assert same(one[index], other[index])
    assert cache.decoded == 30


def test_the_cache_keeps_to_its_budget(tmp_path):
    """Frames beyond the budget are decoded again, identically."""
    segment = segment_in_file(tmp_path)
    small, large = FrameCache(IMAGE, budget_bytes=10 * 16 * 16 * 3 + 5), FrameCache(IMAGE)
    everything = np.arange(30)
    for _ in range(2):
        assert np.array_equal(small.frames(segment, everything), large.frames(segment, everything))
    assert (len(small.kept), small.decoded, large.decoded) == (10, 30 + 20, 30)


def drive_and_stop(idle_first=6, drive=20, idle_last=30):
    """Return a segment that stands, drives and stands, with chunks of 2."""
    xs = np.concatenate([np.zeros(idle_first), np.full(drive, 0.3), np.zeros(idle_last)])
    return segment_of(twists(xs, np.zeros(len(xs))))


@pytest.mark.parametrize(
    ('keep', 'expected'), [(0.0, 0), (0.01, 1), (0.1, 3), (0.5, 15), (1.0, 30)]
)
def test_the_start_of_a_long_stop_is_kept(keep, expected):
    """The share of thirty idle windows at the goal is kept, rounded up, and the whole drive."""
    segment = drive_and_stop()
    data = SegmentDataset([segment], SPEC, IMAGE, 9, {}, idle_keep=keep)
    newest = [window + 3 for _, start, stop in data.pieces for window in range(start, stop)]
    assert len(set(newest)) == len(newest) == data.windows
    # Frames 5 to 25 drive now or within the chunk: starting and stopping are kept in full.
    assert [frame for frame in newest if 5 <= frame < 26] == list(range(5, 26))
    assert [frame for frame in newest if frame >= 26] == list(range(26, 26 + expected))
    assert data.windows + data.thinned == 53


def test_an_exact_share_is_not_rounded_up():
    """0.28 of 25 windows are 7, though 0.28 * 25 is a little more in floating point."""
    data = SegmentDataset([drive_and_stop(0, 20, 25)], SPEC, IMAGE, 9, {}, idle_keep=0.28)
    assert data.thinned == 25 - 7


def test_each_idle_span_is_thinned_by_itself():
    """A pause within a drive keeps its start too, and no piece spans a gap."""
    xs = np.tile(np.concatenate([np.full(10, 0.3), np.zeros(10)]), 3)
    data = SegmentDataset(
        [segment_of(twists(xs, np.zeros(60)))], SPEC, IMAGE, 60, {}, idle_keep=0.2
    )
    idle = 9  # of each ten: the chunk of the last one reaches the next drive
    assert data.thinned == 2 * (idle - 2) + (10 - 2)
    assert [(start, stop) for _, start, stop in data.pieces] == [(0, 9), (16, 29), (36, 49)]


def test_tiny_commands_and_other_axes_are_idle():
    """Windows are idle if commands are below a millionth, or on other axes than the policy's."""
    moves = twists(np.full(20, 4e-7), np.zeros(20))
    moves[:, 5] = 1.0
    driven = twists(np.full(20, 6e-7), np.zeros(20))  # 1.2e-6 of the axis's 0.5 m/s
    assert SegmentDataset([segment_of(moves)], SPEC, IMAGE, 9, {}, idle_keep=0.5).thinned == 8
    assert SegmentDataset([segment_of(driven)], SPEC, IMAGE, 9, {}, idle_keep=0.5).thinned == 0


def test_thinned_frames_are_never_decoded(tmp_path):
    """A frame in no kept window is not read."""
    segment = segment_in_file(tmp_path)
    segment.ahead[14:] = 0
    data = SegmentDataset([segment], SPEC, IMAGE, 9, WORDS, idle_keep=0.1)
    items = [data[index] for index in range(len(data))]
    assert data.cache.decoded == 16 and data.thinned == 14
    assert sum(len(item.actions) for item in items) == data.windows


def test_no_window_left_is_an_error():
    """Idle episodes that thinning removes completely are refused, with their count."""
    segment = segment_of(twists(np.zeros(20), np.zeros(20)))
    with pytest.raises(UserError, match=r'17 windows in which nothing moves.*idle_keep'):
        SegmentDataset([segment], SPEC, IMAGE, 9, {}, idle_keep=0.0)
    assert SegmentDataset([segment], SPEC, IMAGE, 9, {}, idle_keep=0.01).thinned == 16
    for wrong in (-0.1, 1.1, float('nan')):
        with pytest.raises(UserError, match='idle windows to keep'):
            SegmentDataset([segment], SPEC, IMAGE, 9, {}, idle_keep=wrong)


def test_pieces_of_real_episodes_equal_their_segments(episode_folder):
    """Frames, targets and padding of each piece are those of the segment at its rows."""
    segments, _ = load_segments(find_episodes(episode_folder)[:2], Sampling())
    words = {segment.instruction: torch.zeros(1) for segment in segments}
    data = SegmentDataset(segments, SPEC, IMAGE, 7, words)
    for index, (number, start, stop) in enumerate(data.pieces):
        item, segment = data[index], segments[number]
        assert len(item.frames) == stop - start + 3 == len(item.actions) + 3
        np.testing.assert_array_equal(
            item.actions[:, 0].numpy(), SPEC.normalise(segment.ahead[start:stop])
        )
        np.testing.assert_array_equal(item.real[:, -1].numpy(), segment.real[start + 3 : stop + 3])
