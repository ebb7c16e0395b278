"""Frame buffer, policy and playback: time and windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from device_reads import DeviceReads
from made_plans import plan
from mobile_vla_ros.data.preprocess import preprocess
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.runtime.graphed_encoder import TEXT_TOKENS
from mobile_vla_ros.runtime.playback import Plan, command_at, path_of
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.types import Frame, ImageSpec

MS = 1_000_000
IMAGE = np.zeros((4, 4, 3), np.uint8)


def frame(ms: int) -> Frame:
    """Return a frame with this time in milliseconds."""
    return Frame(IMAGE, ms * MS, ms * MS)


def stamps(window) -> list[int]:
    """Return the times of a window in milliseconds."""
    return [one.stamp_ns // MS for one in window]


def test_a_faster_camera_is_sampled_to_the_policy_s_rate():
    """With 30 Hz frames and a 10 Hz policy the window keeps the spacing of the training."""
    buffer = FrameBuffer(10.0, 4)
    for number in range(20):
        buffer.add(frame(round(number * 1000 / 30)))
    assert stamps(buffer.window()) == [333, 433, 533, 633]


def test_a_gap_empties_the_window_until_it_is_full_again():
    """A window never spans a gap."""
    buffer = FrameBuffer(10.0, 3)
    for ms in (0, 100, 200):
        buffer.add(frame(ms))
    assert stamps(buffer.window()) == [0, 100, 200]
    for ms, full in ((600, False), (700, False), (800, True)):
        buffer.add(frame(ms))
        assert (buffer.window() is not None) == full, ms


def test_a_clock_that_jumps_back_empties_the_buffer():
    """The times of earlier frames are not comparable."""
    buffer = FrameBuffer(10.0, 2)
    buffer.add(frame(1000))
    buffer.add(frame(1100))
    buffer.add(frame(500))
    assert buffer.window() is None
    buffer.add(frame(600))
    assert stamps(buffer.window()) == [500, 600]


def test_a_late_frame_is_inserted_in_order():
    """A frame that arrives after a newer one fills its gap."""
    buffer = FrameBuffer(10.0, 4)
    for ms in (0, 100, 300):
        buffer.add(frame(ms))
    assert buffer.window() is None
    buffer.add(frame(200))
    assert stamps(buffer.window()) == [0, 100, 200, 300]


def test_a_repeated_stamp_empties_the_buffer():
    """A camera whose clock has stopped gives no window."""
    buffer = FrameBuffer(10.0, 2)
    for ms in (100, 200, 200):
        buffer.add(frame(ms))
    assert buffer.window() is None


@given(st.lists(st.integers(1, 250), min_size=1, max_size=60), st.integers(1, 6))
def test_every_window_has_the_trained_spacing(gaps, length):
    """For any arrivals, frames of a window are whole periods apart, within half a period."""
    buffer = FrameBuffer(10.0, length)
    now = 0
    for gap in gaps:
        now += gap
        buffer.add(frame(now))
        window = buffer.window()
        if window is not None:
            assert len(window) == length
            assert stamps(window)[-1] == now
            for back, one in enumerate(reversed(window)):
                assert abs(now - back * 100 - one.stamp_ns // MS) <= 50
    assert len(buffer._frames) <= 1 + (length * 100 if gaps else 0)


@pytest.mark.parametrize(
    ('ms', 'step'),
    [(999, None), (1000, 0), (1099, 0), (1100, 1), (1450, 4), (1499, 4), (1500, None)],
)
def test_playback_is_anchored_to_the_time_of_observation(ms, step):
    """Step k starts at stamp + k / rate, even if inference is late; then None."""
    twist = command_at(plan(chunk=5), ms * MS)
    assert (twist is None) if step is None else twist[0] == step / 100


def test_a_plan_s_path_turns_with_the_base():
    """Forward after a quarter turn leads to the left."""
    twists = np.zeros((2, 6))
    twists[0, 5] = np.pi / 2 * 10
    twists[1, 0] = 1.0
    np.testing.assert_allclose(
        path_of(Plan(0, twists, 10.0)),
        [[0, 0, 0], [0, 0, np.pi / 2], [0, 0.1, np.pi / 2]],
        atol=1e-9,
    )


@pytest.fixture(scope='module')
def policy(small_run) -> VlaPolicy:
    """The small run's policy."""
    return VlaPolicy.load(small_run / 'best')


def noise(ms: int) -> Frame:
    """Return a frame of noise, seeded by its time."""
    rng = np.random.default_rng(ms)
    return Frame(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), ms * MS, ms * MS)


def test_only_the_newest_frame_goes_through_the_network(policy):
    """Features are cached: a step encodes one frame and gives the same plan."""
    policy.reset()
    frames = [noise(ms) for ms in range(0, 800, 100)]
    before = policy.encoded_frames
    plans = [policy.infer(frames[end - 4 : end], 'go to the red box') for end in range(4, 9)]
    assert policy.encoded_frames - before == 4 + 4
    policy.reset()
    fresh = policy.infer(frames[4:], 'go to the red box')
    np.testing.assert_allclose(plans[-1].twists, fresh.twists, atol=1e-6)
    assert fresh.stamp_ns == 700 * MS
    assert fresh.twists.shape == (10, 6)
    assert not fresh.twists[:, 2:].any()


def test_a_new_instruction_encodes_the_window_again(policy):
    """Cached features depend on the instruction."""
    frames = [noise(ms) for ms in range(0, 400, 100)]
    policy.reset()
    red = policy.infer(frames, 'go to the red box')
    before = policy.encoded_frames
    blue = policy.infer(frames, 'go to the blue ball')
    assert policy.encoded_frames - before == 4
    assert np.abs(red.twists - blue.twists).max() > 0


def test_fixed_shapes_give_the_same_plans(policy, small_run):
    """Frame by frame beside a window in one batch, instructions of any length."""
    fixed, frames = VlaPolicy.load(small_run / 'best'), [noise(ms) for ms in range(0, 500, 100)]
    fixed.capture()
    policy.reset()
    for words in (2, 5, 3, TEXT_TOKENS + 1):
        for window in (frames[:4], frames[1:]):
            text = 'go ' * words
            np.testing.assert_allclose(
                fixed.infer(window, text).twists, policy.infer(window, text).twists, atol=1e-5
            )
    assert fixed.encoded_frames == 4 * 5


def test_encoding_never_waits_for_the_gpu(policy):
    """A value that Python reads would end the capture of a CUDA graph."""
    frames = [noise(ms) for ms in range(0, 500, 100)]
    policy.infer(frames[:4], 'go to the red box')  # its tokens are counted on the CPU
    with DeviceReads() as reads:
        policy.infer(frames[1:], 'go to the red box')
    assert reads.count == 0


def test_a_policy_refuses_a_wrong_window_and_an_empty_instruction(policy):
    """With a UserError."""
    with pytest.raises(UserError, match='window'):
        policy.infer([noise(0)], 'go')
    with pytest.raises(UserError, match='no instruction'):
        policy.infer([noise(ms) for ms in range(0, 400, 100)], '  ')


def test_preprocessing_does_not_depend_on_the_default_dtype():
    """Loading another policy changes it for a moment, in all threads."""
    spec = ImageSpec(8, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    before = preprocess(image, spec)
    torch.set_default_dtype(torch.bfloat16)
    try:
        meanwhile = preprocess(image, spec)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(before, meanwhile)
