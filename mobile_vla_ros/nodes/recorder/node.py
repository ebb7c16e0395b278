"""
The recorder: writes what the camera saw and what the robot was told, take by take.

Callbacks only store. A thread of each take encodes and writes (``episode.recording``), and
threads of the folder's recover, count and measure (``take_folder``): neither a slow disk nor a
long close keeps a message waiting.
"""

import os
import sys
import threading
import time
import traceback
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.auto_record import START, DriveTakes
from mobile_vla_ros.nodes.recorder.camera_monitor import CameraWatch
from mobile_vla_ros.nodes.recorder.current_episode import (
    CLOSING,
    IDLE,
    RECORDING,
    STARTING,
    CurrentTake,
)
from mobile_vla_ros.nodes.recorder.episode_folder import TakeFolder
from mobile_vla_ros.nodes.recorder.params import recorder_params
from mobile_vla_ros.nodes.recorder.proposals import Proposals
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener
from mobile_vla_ros.nodes.shared.messages import (
    receipt_ns,
    ros_version,
    status_array,
    status_message,
    time_ns,
    twist_array,
)
from mobile_vla_ros.nodes.shared.run import off_thread, run
from mobile_vla_ros.nodes.shared.topics import (
    CAMERA_QOS,
    CommandTopic,
    InstructionTopic,
    camera,
    several,
    wrong_camera,
)
from mobile_vla_ros.safety.status import GuardStatus
from mobile_vla_ros.types import Command

STATUS_DEPTH = 10

GRAPH_PERIOD_S = 0.2
STATUS_PERIOD_S = 0.5
RETRY_S = 1.0
CLOSE_S = 20.0


class RecorderNode(Node):
    """ROS around ``episode.recording.Recording``."""

    def __init__(self):
        super().__init__('recorder')
        self._params = params = recorder_params(self)
        self._instruction = params.instruction
        self._camera = CameraWatch(params.expected_rate_hz)
        self._folder = TakeFolder(
            params.data_dir,
            params.disk_floor_bytes,
            say=self.get_logger().info,
            warn=self.get_logger().error,
        )
        self._ended = ''
        self._last_image = None
        self._first_image: Future | None = None
        self._opening: Future | None = None
        self._camera_hz = 0.0
        self._camera_problem = ''

        self._camera_topic, self._camera_type = camera(self, params.images.transport)
        self._encode = params.images.encoder(self._camera_type)
        self._take = take = CurrentTake(params, self._folder, self._encode, self._now_ns)
        self._listen_to_camera()
        self._drive_takes = DriveTakes(params.follow_guard)
        self._due: Future | None = None
        self._retry_s = 0.0
        self._guard = GuardStatusListener(self, time.monotonic_ns, self._on_guard_status)
        self._commands = CommandTopic(self, 'cmd_vel', self._on_command, self._take.command_type)
        self._proposals = Proposals(self, take.proposal)
        self._instructions = InstructionTopic(self, self._on_instruction)
        self._status = self.create_publisher(DiagnosticStatus, '~/status', STATUS_DEPTH)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        # An answer may wait for an image or for the disk; only its own group may wait with it.
        services = ReentrantCallbackGroup()
        for name, answer in (
            ('start', self._start),
            ('stop', partial(self._stop, 'unknown')),
            ('success', partial(self._stop, 'success')),
            ('failure', partial(self._stop, 'failure')),
            ('discard', self._discard),
        ):
            self.create_service(
                Trigger, f'~/{name}', partial(self._serve, answer), callback_group=services
            )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(GRAPH_PERIOD_S, self._look_at_graph, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._tell, clock=steady)
        self._folder.start(
            lambda: take.recording if take.state == RECORDING else None, self._expected_bytes_per_s
        )

    def on_exit(self):
        """Close a take in progress: it is as whole as one that was stopped by service."""
        if self._opening is not None:
            self._take.throw_away(self._opening, CLOSE_S)
        ended = self._take.shut_down(CLOSE_S)
        if ended:
            self.get_logger().info(ended)
        self._folder.close()

    # --- what is heard: stored, and handed to the take ---

    def _listen_to_camera(self):
        listen = partial(
            self.create_subscription,
            self._camera_type,
            self._camera_topic,
            self._on_image,
            CAMERA_QOS,
        )
        try:
            listen(event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost))
        except UnsupportedEventTypeError:
            listen()

    def _on_image(self, message: Image | CompressedImage, info: dict):
        received_ns, stamp_ns = receipt_ns(self, info), time_ns(message.header.stamp)
        missing = self._camera.frame(
            time.monotonic_ns(), stamp_ns, received_ns, info['publication_sequence_number']
        )
        self._last_image = message
        if self._first_image is not None and not self._first_image.done():
            self._first_image.set_result(True)
        self._take.frame(message, stamp_ns, received_ns, missing)

    def _on_lost(self, lost):
        """Count what the middleware says it lost, where messages carry no count of their own."""
        if not self._camera.counted:
            self._take.lost(lost.total_count_change)

    def _on_command(self, twist: Twist, stamp_ns: int | None, info: dict, missing: int):
        if self._take.state != RECORDING:
            return
        if missing:
            self._take.lose_commands(missing, 'were lost before they came')
        received_ns = receipt_ns(self, info)
        values = twist_array(twist)
        if not np.isfinite(values).all():
            self._take.lose_commands(1, 'were not finite')
            return
        self._take.command(
            Command(values, received_ns if stamp_ns is None else stamp_ns, received_ns),
            info['source_timestamp'] or received_ns,
        )

    def _on_instruction(self, instruction: str):
        self._instruction = instruction
        self._follow_guard()

    def _on_guard_status(self, status: GuardStatus, sent_ns: int):
        self._take.guard_status(status, sent_ns)
        self._follow_guard()

    def _look_at_graph(self):
        """Find the publishers of the camera and of cmd_vel, and the type that the latter has."""
        self._take.write_commands()
        cameras = self.get_publishers_info_by_topic(self._camera_topic)
        self._camera.published_by({tuple(info.endpoint_gid) for info in cameras}, len(cameras))
        rivals = several(self._camera_topic, cameras)
        if rivals:
            self._take.note('cameras', rivals)
        self._camera_problem = (
            wrong_camera(self._camera_topic, cameras, self._camera_type) or rivals
            if cameras
            else f'no camera: nobody publishes {self._camera_topic}'
        )
        self._commands.update()
        if self._commands.rivals:
            self._take.note('rivals', self._commands.rivals)

    # --- services: a sentence for every answer ---

    async def _serve(self, answer, _request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = await answer()
            response.success = True
            self.get_logger().info(response.message)
        except UserError as error:
            response.message = str(error)
            self.get_logger().warning(response.message)
        except Exception as error:  # a defect of ours: told of, but it ends no recorder
            response.message = f'{type(error).__name__}: {error}'
            self.get_logger().error(traceback.format_exc())
        self._tell()
        return response

    def _follow_guard(self):
        """Begin or end a take by ourselves, where the parameter says so and it is time for it."""
        if (self._due is not None and not self._due.done()) or time.monotonic() < self._retry_s:
            return
        due = self._drive_takes.due(self._guard.armed, self._instruction, self._take.state)
        if due:
            answer = self._start if due == START else partial(self._stop, 'unknown')
            self._due = self.executor.create_task(self._do(answer))

    async def _do(self, answer):
        """Do what is due; a refusal is told in the status, and not tried again at once."""
        response = await self._serve(answer, None, Trigger.Response())
        if not response.success:
            self._ended = self._ended or response.message
            self._retry_s = time.monotonic() + RETRY_S

    async def _start(self) -> str:
        take = self._take
        if take.state != IDLE:
            raise UserError(
                f'a take is {take.state} already', got='a second start', remedy='stop it first'
            )
        self._info()  # what is wrong with it is said at once, not after the wait
        take.state = STARTING
        try:
            await self._first()
            if not self._now_ns():
                raise UserError(
                    'use_sim_time is set, and no time comes on /clock',
                    remedy='start the simulator, or leave use_sim_time out',
                )
            self._opening = off_thread(
                self.executor,
                partial(
                    take.open,
                    self._last_image,
                    self._info(),
                    self._camera.expected_hz,
                    proposals=self._proposals.there,
                ),
            )
            take.begin(await self._opening)
        finally:
            self._opening = None
            if take.state == STARTING:
                take.state = IDLE
        self._ended = ''
        warning = f' ({self._commands.problem})' if self._commands.problem else ''
        return f'recording {take.recording.part_path}{warning}'

    def _info(self) -> EpisodeInfo:
        image = self._last_image
        return EpisodeInfo(
            self._instruction,
            operator=self._params.operator,
            robot=self._params.robot,
            image_topic=self._camera_topic,
            command_topic=self._commands.topic,
            command_type=self._commands.type,
            frame_id=image.header.frame_id if image is not None else '',
            ros_version=ros_version(),
        )

    async def _first(self):
        """Wait for an image that is fresh; a recorder that was just started may need a moment."""
        if self._camera.fresh(time.monotonic_ns()):
            return
        first = self._first_image = Future()
        patience = self.create_timer(
            self._params.camera_wait_s,
            lambda: first.done() or first.set_result(False),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        came = await first
        self.destroy_timer(patience)
        self._first_image = None
        if not came:
            raise UserError(
                self._camera_problem or f'no image came on {self._camera_topic}',
                got=f'nothing in {self._params.camera_wait_s} s',
                remedy='start the camera first',
            )

    async def _stop(self, outcome: str) -> str:
        take = self._running()
        self._take.write_commands(all_of_them=True)
        if outcome != 'unknown':
            take.event('outcome', self._now_ns(), outcome)
        take.event('stop', self._now_ns())
        await self._end(partial(take.finish, outcome))
        problem = f'. {take.problem}' if take.problem else ''
        verdict = '; '.join([take.health['verdict'], *take.health['reasons']])
        return f'{take.path} ({verdict}){problem}'

    async def _discard(self) -> str:
        take = self._running()
        await self._end(take.discard)
        if take.path is not None:
            raise UserError(
                f'the take had ended by itself and is kept: {take.path}', got=take.problem
            )
        return f'discarded {take.part_path.name}'

    def _running(self) -> Recording:
        self._settle()
        if self._take.state != RECORDING:
            raise UserError(
                'no take is being recorded',
                got=f'the recorder is {self._take.state}',
                remedy='start one first',
            )
        return self._take.recording

    async def _end(self, end):
        """Have the take closed without keeping any other callback waiting."""
        done = Future(executor=self.executor)
        self._take.state = CLOSING
        end(on_done=partial(done.set_result, True))
        await done
        recording = self._take.let_go()
        if recording.error:
            self._ended = recording.error
            raise UserError(recording.error)

    def _settle(self):
        """Notice a take that ended by itself."""
        ended = self._take.settle()
        if ended:
            self._ended = ended
            self.get_logger().error(ended)

    # --- what is told ---

    def _tell(self):
        self._settle()
        self._follow_guard()
        now_ns = time.monotonic_ns()
        self._camera_hz = self._camera.rate_hz(now_ns)
        if self._take.state != RECORDING or self._camera.expected_hz is None:
            self._camera.learn(now_ns)
            self._take.expect(self._camera.expected_hz)
        values = {
            'instruction': self._instruction,
            'camera_hz': f'{self._camera_hz:.1f}',
            'expected_hz': f'{self._camera.expected_hz or 0:.1f}',
            'command_type': self._commands.type,
            'source': self._guard.source,
            **self._take.values(),
            **self._folder.values(),
            'problem': '; '.join(self._problems(now_ns)),
        }
        level = DiagnosticStatus.WARN if values['problem'] else DiagnosticStatus.OK
        status = status_message(
            self.get_fully_qualified_name().lstrip('/'), self._take.state, values, level
        )
        self._status.publish(status)
        self._diagnostics.publish(status_array(self.get_clock().now().to_msg(), status))

    def _problems(self, now_ns: int) -> list[str]:
        found = [self._camera_problem]
        clock = self._camera.clock()
        if clock.kind != 'sane':
            found.append(clock.sentence)
            self._take.note(clock.kind, clock.sentence)
        if self._take.state == RECORDING and not self._camera.fresh(now_ns):
            found.append('no image comes')
            self._take.note('silent', 'no image comes')
        found += [
            self._commands.problem,
            self._folder.problem,
            self._ended,
            *self._take.problems(),
        ]
        return [problem for problem in found if problem]

    def _expected_bytes_per_s(self) -> float:
        """What a take would write a second, by the newest image; encodes, so not for callbacks."""
        image = self._last_image
        return len(self._encode(image)) * self._camera_hz if image and self._camera_hz else 0.0

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def main(args: list[str] | None = None) -> int:
    """Run the recorder."""
    status = run('recorder_node', RecorderNode, args=args)
    if any(thread.daemon for thread in threading.enumerate()):
        # A recovery still reads and writes; it must not see HDF5 be torn down around it.
        sys.stdout.flush()
        os._exit(status)
    return status
