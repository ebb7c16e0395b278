"""A frame that is lost is counted, and named in an event a second at most."""

import time

import pytest

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS
from ros_helpers import wait_until
from small_episodes import CREATED_NS, encoded


@pytest.fixture
def recording(tmp_path):
    """An episode with a queue of a hundred frames."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    return Recording(writer, queue_frames=100, steady_ns=time.monotonic_ns)


def fail_with(error: Exception):
    """Return an encoder that raises."""

    def fail():
        raise error

    return fail


@pytest.mark.parametrize('error', [MemoryError(), ValueError('odd'), AttributeError('tobytes')])
def test_an_encoder_that_fails_in_any_way_costs_a_frame(recording, error):
    """A defect of a library is a drop as well, and is named."""
    recording.frame(fail_with(error), 1, 1)
    recording.frame(lambda: encoded(1), 2, 2)
    recording.finish('success')
    assert recording.join(10) and recording.error is None
    assert (recording.frames, recording.drops) == (1, 1)
    assert recording.problem == (str(error) or 'MemoryError')


def test_drops_between_good_frames_share_an_event_a_second(recording):
    """Every other image lost for three seconds, for reasons whose numbers differ."""
    for number in range(90):
        now_ns = CREATED_NS + number * NANOSECONDS // 30
        lost = fail_with(UserError('an image is broken', got=f'{number} bytes'))
        recording.frame(lost if number % 2 else lambda: encoded(1), now_ns, now_ns)
        wait_until(lambda: not recording.queued)
    recording.finish('success')
    assert recording.join(10) and (recording.frames, recording.drops) == (45, 45)
    with Episode.open(recording.path) as episode:
        texts = [event.text for event in episode.events]
        assert 3 <= len(texts) <= 4
        assert {text.split(': ')[1] for text in texts} == {'an image is broken'}
        assert episode.health['drops'] == 45
