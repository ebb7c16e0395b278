"""Takes that follow the guard: one while it is armed, one an instruction; a person comes first."""

from mobile_vla_ros.nodes.recorder.auto_record import START, STOP, DriveTakes
from mobile_vla_ros.nodes.recorder.current_episode import CLOSING, IDLE, RECORDING, STARTING


def dues(*steps: tuple) -> list[str]:
    """Return what is due at each step: (armed, instruction, state of the recorder)."""
    takes = DriveTakes()
    return [takes.due(*step) for step in steps]


def test_a_take_lasts_as_long_as_the_guard_is_armed():
    """Not before, and none after it."""
    assert dues(
        (False, 'a', IDLE),
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', RECORDING),
        (False, 'a', RECORDING),
        (False, 'a', IDLE),
    ) == ['', START, '', '', STOP, '']


def test_another_instruction_is_another_take():
    """What is shown is what was asked for; told again it is no news."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'b', RECORDING),
        (True, 'b', IDLE),
        (True, 'b', RECORDING),
    ) == [START, '', STOP, START, '']


def test_armed_again_while_the_last_take_is_closed_is_not_lost():
    """A slow disk: the next take begins when the recorder is ready."""
    assert dues(
        (True, 'a', IDLE), (False, 'a', RECORDING), (True, 'a', CLOSING), (True, 'a', IDLE)
    ) == [START, STOP, '', START]


def test_disarmed_while_the_take_is_opened_it_ends_as_soon_as_it_can():
    """It waited for the camera, for one."""
    assert dues((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', RECORDING)) == [
        START,
        '',
        STOP,
    ]


def test_a_take_that_could_not_begin_is_tried_again():
    """The guard was armed before the first image came; a person's end of a take is no failure."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'a', IDLE),
    ) == [START, '', START, '', '', '']


def test_a_drive_without_an_instruction_yet_is_recorded_from_the_first_one_on():
    """Armed before anything was asked for, and asked for nothing in mid-drive."""
    assert dues(
        (True, '', IDLE),
        (True, ' ', IDLE),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, '', RECORDING),
        (True, '', IDLE),
        (True, 'b', IDLE),
    ) == ['', '', START, '', STOP, '', START]


def test_disarmed_before_a_failed_take_could_be_tried_again_there_is_none():
    """Nothing is recorded that nobody drives."""
    assert dues((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', IDLE)) == [START, '', '']


def test_a_take_that_a_person_started_is_left_to_them():
    """Neither ended by a disarming nor by an instruction, nor followed by one of ours."""
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


def test_a_take_that_a_person_ended_is_not_followed_by_another():
    """Nor one that the recorder ended itself: only when the guard is armed anew."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'b', IDLE),
        (False, 'b', IDLE),
        (True, 'b', IDLE),
    ) == [START, '', '', '', '', START]
