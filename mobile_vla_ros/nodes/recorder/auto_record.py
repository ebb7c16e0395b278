"""Takes that begin and end by themselves: pure."""

from mobile_vla_ros.nodes.recorder.current_episode import IDLE, RECORDING, STARTING

START, STOP = 'start', 'stop'


class DriveTakes:
    """
    A take for each stretch in which the guard is armed, and in it for each instruction.

    What a person does by a service comes first: a take that they started is left to them, and one
    that they ended is not followed by another before the guard is armed anew. One that could not
    begin (no image, no instruction yet) is tried again.

    :param follow_guard: whether that is wished for; else nothing ever is due.
    """

    def __init__(self, follow_guard: bool = True):
        self._follow_guard = follow_guard
        self._armed = self._owed = self._ours = self._began = False
        self._instruction = ''

    def due(self, armed: bool, instruction: str, state: str) -> str:
        """
        Return what is to be done now; to be asked when what was due before is done.

        :param armed: by the guard's newest word.
        :param instruction: the newest one.
        :param state: of the recorder.
        :returns: ``START``, ``STOP`` or nothing.
        """
        if not self._follow_guard:
            return ''
        begins, self._armed = armed and not self._armed, armed
        self._began |= state == RECORDING
        if state == IDLE:
            self._owed |= self._ours and not self._began
            self._ours = False
        if begins or (self._ours and instruction != self._instruction):
            self._owed = True
        if not armed or (state in (STARTING, RECORDING) and not self._ours):
            self._owed = False
        if state == IDLE and self._owed and instruction.strip():
            self._owed, self._ours, self._began = False, True, False
            self._instruction = instruction
            return START
        if state == RECORDING and self._ours and (self._owed or not armed):
            return STOP
        return ''
