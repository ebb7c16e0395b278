"""Starts and ends episodes: on request by a service, and by itself while it follows the guard."""

import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from mobile_vla_ros.episode.catalog.edit import MENDS, mend, user
from mobile_vla_ros.episode.quality.verdict import sentences
from mobile_vla_ros.episode.storage.edits import INSTRUCTION
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.black_box import NO_INSTRUCTION
from mobile_vla_ros.nodes.recorder.camera import CameraInput
from mobile_vla_ros.nodes.recorder.current_episode import (
    CLOSING,
    IDLE,
    RECORDING,
    STARTING,
    CurrentEpisode,
)
from mobile_vla_ros.nodes.shared.run import off_thread

START, STOP = 'start', 'stop'
RETRY_S = 1.0


class AutoRecord:
    """
    Decides when an episode follows the guard: one while it is armed, and one per instruction.

    A person's service calls come first: an episode that they started is left to them, and one
    that they ended is not followed by another before the guard is armed again. An episode that
    could not begin (no image, no instruction yet) is tried again. Knows no ROS.

    :param follow_guard: False: nothing is ever due.
    """

    def __init__(self, follow_guard: bool = True) -> None:
        self._follow_guard = follow_guard
        self._armed = False
        self._owed = False  # an episode is to begin as soon as the recorder is idle
        self._ours = False  # the present episode, or the attempt at one, was started here
        self._began = False
        self._instruction = ''

    def due(self, armed: bool, instruction: str, state: str) -> str:
        """
        Return the next step; call it again when that is done.

        :param armed: by the guard's newest report.
        :param instruction: the newest one.
        :param state: of the recorder.
        :returns: ``START``, ``STOP`` or ''.
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


class EpisodeServices:
    """
    Serves ``~/start``, ``~/stop``, ``~/success``, ``~/failure``, ``~/discard``, ``~/black_box``.

    ``~/last_instruction``, ``~/last_outcome``, ``~/last_shorten`` and ``~/last_undo`` edit the
    last episode, in a list beside it (``episode.catalog.edit.mend``). Every answer is a sentence.
    Opening and closing a file never blocks a callback.

    :ivar failure: why the last episode ended or could not begin; '' after a start.
    :param info: returns the attributes of an episode that would begin now; its argument is used
        if there is no instruction.
    :param proposals: returns whether an episode that begins now needs room for proposals.
    :param warning: returns a sentence to add to the answer of a start, or ''.
    :param on_answer: called after each answer.
    """

    def __init__(
        self,
        node: Node,
        episode: CurrentEpisode,
        camera: CameraInput,
        *,
        follow_guard: bool,
        info: Callable[..., EpisodeInfo],
        proposals: Callable[[], bool],
        warning: Callable[[], str],
        on_answer: Callable[[], None],
    ) -> None:
        self.failure = ''
        self._node = node
        self._episode = episode
        self._camera = camera
        self._info, self._proposals, self._warning = info, proposals, warning
        self._on_answer = on_answer
        self._opening: Future | None = None
        self._auto = AutoRecord(follow_guard)
        self._pending: Future | None = None
        self._retry_at_s = 0.0
        # An answer may wait for an image or for the disk; only its own group may wait with it.
        group = ReentrantCallbackGroup()
        answers: dict[str, Callable[[], Awaitable[str]]] = {
            'start': self._start,
            'stop': partial(self._stop, 'unknown'),
            'success': partial(self._stop, 'success'),
            'failure': partial(self._stop, 'failure'),
            'discard': self._discard,
            'black_box': self._black_box,
        }
        answers |= {name: partial(self._mend, kind) for kind, name in MENDS.items()}
        for name, answer in answers.items():
            node.create_service(
                Trigger, f'~/{name}', partial(self._serve, answer), callback_group=group
            )

    def follow_guard(self, armed: bool, instruction: str) -> None:
        """Begin or end an episode, if one is due (``AutoRecord``)."""
        busy = self._pending is not None and not self._pending.done()
        if busy or time.monotonic() < self._retry_at_s:
            return
        due = self._auto.due(armed, instruction, self._episode.state)
        if due:
            answer = self._start if due == START else partial(self._stop, 'unknown')
            executor = self._node.executor
            assert executor is not None  # only callbacks reach this
            self._pending = executor.create_task(self._do(answer))

    def settle(self) -> None:
        """Report an episode that ended by itself."""
        sentence = self._episode.settle()
        if sentence:
            self.failure = sentence
            self._node.get_logger().error(sentence)

    def shut_down(self, timeout_s: float) -> None:
        """Close an episode in progress, and discard one that is being opened."""
        if self._opening is not None:
            self._episode.discard_unopened(self._opening, timeout_s)
        sentence = self._episode.shut_down(timeout_s)
        if sentence:
            self._node.get_logger().info(sentence)

    async def _serve(
        self, answer: Callable[[], Awaitable[str]], _request, response: Trigger.Response
    ) -> Trigger.Response:
        logger = self._node.get_logger()
        try:
            response.message = await answer()
            response.success = True
            logger.info(response.message)
        except UserError as error:
            response.message = str(error)
            logger.warning(response.message)
        except Exception as error:  # a defect must not end the recorder
            response.message = f'{type(error).__name__}: {error}'
            logger.error(traceback.format_exc())
        self._on_answer()
        return response

    async def _do(self, answer: Callable[[], Awaitable[str]]) -> None:
        """Do what is due; report a refusal, and wait before the next attempt."""
        response = await self._serve(answer, None, Trigger.Response())
        if not response.success:
            self.failure = self.failure or response.message
            self._retry_at_s = time.monotonic() + RETRY_S

    async def _start(self) -> str:
        episode = self._episode
        if episode.state != IDLE:
            raise UserError(
                f'the recorder is {episode.state} already',
                got='a second start',
                remedy='stop it first',
            )
        self._info()  # refuses bad attributes at once, not after the wait
        episode.state = STARTING
        try:
            await self._camera.wait_for_image()
            if not self._now_ns():
                raise UserError(
                    'use_sim_time is set, and no time comes on /clock',
                    remedy='start the simulator, or leave use_sim_time out',
                )
            executor = self._node.executor
            assert executor is not None  # only a service's callback comes here
            self._opening = off_thread(
                executor,
                partial(
                    episode.open,
                    self._camera.newest,
                    self._info(),
                    self._camera.monitor.expected_hz,
                    proposals=self._proposals(),
                ),
            )
            opened = await self._opening
            episode.begin(opened)
        finally:
            self._opening = None
            if episode.state == STARTING:
                episode.state = IDLE
        self.failure = ''
        warning = self._warning()
        return f'recording {opened.recording.part_path}' + (f' ({warning})' if warning else '')

    async def _stop(self, outcome: str) -> str:
        recording = self._running()
        self._episode.write_commands(all_of_them=True)
        if outcome != 'unknown':
            self._episode.event('outcome', outcome)
        self._episode.event('stop')
        await self._end(partial(recording.finish, outcome))
        problem = f'. {recording.problem}' if recording.problem else ''
        health = recording.health
        assert health is not None
        return f'{recording.path} ({"; ".join(sentences(health))}){problem}'

    async def _discard(self) -> str:
        recording = self._running()
        await self._end(recording.discard)
        if recording.path is not None:
            raise UserError(
                f'the episode had already ended and is kept: {recording.path}',
                got=recording.problem,
            )
        return f'discarded {recording.part_path.name}'

    async def _black_box(self) -> str:
        return self._episode.trigger('asked for by a person', self._info(NO_INSTRUCTION))

    async def _mend(self, kind: str) -> str:
        path = self._episode.last
        if path is None or self._episode.state != IDLE:  # two files at once share h5py's lock
            raise UserError(
                'no episode has just ended',
                got=f'the recorder is {self._episode.state}',
                remedy='end one first; mobile_vla episodes edit changes earlier ones',
            )
        instruction = self._info().instruction if kind == INSTRUCTION else ''
        executor = self._node.executor
        assert executor is not None  # only a service's callback comes here
        work = partial(mend, path, kind, instruction, by=user(), time_ns=time.time_ns())
        line = await off_thread(executor, work)
        self._episode.count_again()
        return str(line)

    def _running(self) -> Recording:
        self.settle()
        recording = self._episode.recording
        if self._episode.state != RECORDING or recording is None:
            raise UserError(
                'no episode is being recorded',
                got=f'the recorder is {self._episode.state}',
                remedy='start one first',
            )
        return recording

    async def _end(self, end: Callable[..., None]) -> None:
        """Close the episode without blocking any other callback."""
        done = Future(executor=self._node.executor)
        self._episode.state = CLOSING
        end(on_done=partial(done.set_result, True))
        await done
        recording = self._episode.release()
        if recording.error:
            self.failure = recording.error
            raise UserError(recording.error)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
