"""Episodes that follow the guard: one per instruction while armed, none beside a person's."""

from mobile_vla_ros.nodes.recorder.current_episode import CLOSING, IDLE, RECORDING, STARTING
from mobile_vla_ros.nodes.recorder.services import START, STOP, AutoRecord


def actions(*steps: tuple) -> list[str]:
    """Return the action at each step (armed, instruction, state of the recorder)."""
    auto = AutoRecord()
    return [auto.due(*step) for step in steps]


def test_an_episode_lasts_as_long_as_the_guard_is_armed():
    """None before and none after."""
    assert actions(
        (False, 'a', IDLE),
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', RECORDING),
        (False, 'a', RECORDING),
        (False, 'a', IDLE),
    ) == ['', START, '', '', STOP, '']


def test_another_instruction_starts_another_episode():
    """Each episode has one instruction; the same one again changes nothing."""
    assert actions(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'b', RECORDING),
        (True, 'b', IDLE),
        (True, 'b', RECORDING),
    ) == [START, '', STOP, START, '']


def test_arming_again_while_the_last_episode_is_closed_is_not_lost():
    """With a slow disk the next episode starts when the recorder is ready."""
    assert actions(
        (True, 'a', IDLE), (False, 'a', RECORDING), (True, 'a', CLOSING), (True, 'a', IDLE)
    ) == [START, STOP, '', START]


def test_disarming_while_an_episode_is_opened_ends_it_as_soon_as_possible():
    """The recorder may wait for the camera, for example."""
    assert actions((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', RECORDING)) == [
        START,
        '',
        STOP,
    ]


def test_a_failed_start_is_repeated():
    """If the guard was armed before the first image; the end of an episode is no failure."""
    assert actions(
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'a', IDLE),
    ) == [START, '', START, '', '', '']


def test_a_drive_is_recorded_from_its_first_instruction_on():
    """Armed before the first instruction, and an empty one during the drive."""
    assert actions(
        (True, '', IDLE),
        (True, ' ', IDLE),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, '', RECORDING),
        (True, '', IDLE),
        (True, 'b', IDLE),
    ) == ['', '', START, '', STOP, '', START]


def test_disarming_before_a_second_attempt_cancels_it():
    """Nothing is recorded while nobody drives."""
    assert actions((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', IDLE)) == [
        START,
        '',
        '',
    ]


def test_an_episode_started_by_a_person_is_not_ended():
    """Neither disarming nor an instruction ends it, and no other starts by itself."""
    assert (
        actions(
            (False, 'a', RECORDING),
            (True, 'a', RECORDING),
            (True, 'b', RECORDING),
            (False, 'b', RECORDING),
            (True, 'b', RECORDING),
            (True, 'b', IDLE),
        )
        == [''] * 6
    )


def test_no_episode_follows_one_ended_by_a_person():
    """Nor one ended by the recorder: the next one starts when the guard is armed again."""
    assert actions(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'b', IDLE),
        (False, 'b', IDLE),
        (True, 'b', IDLE),
    ) == [START, '', '', '', '', START]
