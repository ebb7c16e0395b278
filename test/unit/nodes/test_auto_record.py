"""Episodes that follow the guard: one while armed, one per instruction; people come first."""

from mobile_vla_ros.nodes.recorder.current_episode import CLOSING, IDLE, RECORDING, STARTING
from mobile_vla_ros.nodes.recorder.services import START, STOP, AutoRecord


def dues(*steps: tuple) -> list[str]:
    """Return what is due at each step: (armed, instruction, state of the recorder)."""
    auto = AutoRecord()
    return [auto.due(*step) for step in steps]


def test_an_episode_lasts_as_long_as_the_guard_is_armed():
    """None before, and none after it."""
    assert dues(
        (False, 'a', IDLE),
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', RECORDING),
        (False, 'a', RECORDING),
        (False, 'a', IDLE),
    ) == ['', START, '', '', STOP, '']


def test_another_instruction_begins_another_episode():
    """Each episode has one instruction; the same one again changes nothing."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'b', RECORDING),
        (True, 'b', IDLE),
        (True, 'b', RECORDING),
    ) == [START, '', STOP, START, '']


def test_arming_again_while_the_last_episode_is_closed_is_not_lost():
    """A slow disk: the next episode begins when the recorder is ready."""
    assert dues(
        (True, 'a', IDLE), (False, 'a', RECORDING), (True, 'a', CLOSING), (True, 'a', IDLE)
    ) == [START, STOP, '', START]


def test_disarming_while_an_episode_is_opened_ends_it_as_soon_as_possible():
    """It waited for the camera, for one."""
    assert dues((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', RECORDING)) == [
        START,
        '',
        STOP,
    ]


def test_an_episode_that_could_not_begin_is_tried_again():
    """The guard was armed before the first image; ending an episode is no failure."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'a', IDLE),
    ) == [START, '', START, '', '', '']


def test_a_drive_without_an_instruction_yet_is_recorded_from_the_first_one_on():
    """Armed before the first instruction, and an empty one during the drive."""
    assert dues(
        (True, '', IDLE),
        (True, ' ', IDLE),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, '', RECORDING),
        (True, '', IDLE),
        (True, 'b', IDLE),
    ) == ['', '', START, '', STOP, '', START]


def test_disarming_before_a_second_attempt_cancels_it():
    """Nothing is recorded that nobody drives."""
    assert dues((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', IDLE)) == [START, '', '']


def test_an_episode_that_a_person_started_is_left_to_them():
    """Neither disarming nor an instruction ends it, and none follows it by itself."""
    assert (
        dues(
            (False, 'a', RECORDING),
            (True, 'a', RECORDING),
            (True, 'b', RECORDING),
            (False, 'b', RECORDING),
            (True, 'b', RECORDING),
            (True, 'b', IDLE),
        )
        == [''] * 6
    )


def test_no_episode_follows_one_that_a_person_ended():
    """Nor one that the recorder ended itself: only when the guard is armed again."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'b', IDLE),
        (False, 'b', IDLE),
        (True, 'b', IDLE),
    ) == [START, '', '', '', '', START]
