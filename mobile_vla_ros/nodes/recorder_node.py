"""
The recorder: writes what the camera saw and what the robot was told, take by take.

Callbacks only store; a thread of each take encodes and writes (``episode.recording``), so that
neither a slow disk nor a long close keeps a message waiting.
"""

import os
import sys
import time
from collections import deque
from functools import partial

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.episode.recording import Recording
from mobile_vla_ros.episode.schema import EpisodeInfo
from mobile_vla_ros.episode.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes import images
from mobile_vla_ros.nodes.common import declare, run, status_message, time_ns, twist_array
from mobile_vla_ros.nodes.topics import LATCHED, camera, command_type, wrong_camera
from mobile_vla_ros.types import SOURCES, Command

COMMAND_DEPTH = 10
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)

COMMAND_TYPES = {'geometry_msgs/msg/Twist': Twist, 'geometry_msgs/msg/TwistStamped': TwistStamped}

GRAPH_PERIOD_S = 0.2
STATUS_PERIOD_S = 0.5
RATE_SPAN_S = 2.0
CAMERA_FRESH_S = 1.0
GUARD_FRESH_S = 1.5
CLOSE_S = 20.0

IDLE, STARTING, RECORDING, CLOSING = 'idle', 'starting', 'recording', 'closing'


class RecorderNode(Node):
    """ROS around ``episode.recording.Recording``."""

    def __init__(self):
        super().__init__('recorder')
        self._data_dir = declare(self, 'data_dir', '~/mobile_vla_takes',
                                 'folder of the episodes; made when it is missing')
        self._instruction = declare(
            self, 'instruction', '', 'what the robot is told, until the topic instruction says '
            'otherwise')
        self._operator = declare(self, 'operator', '', 'who drives; kept with every take')
        self._robot = declare(self, 'robot', '', 'which robot; kept with every take')
        transport = declare(self, 'image_transport', 'raw',
                            'raw (camera/image_raw) or compressed (camera/image_raw/compressed)')
        self._format = declare(self, 'image_format', 'jpeg',
                               'how raw images are stored: jpeg, or png for no loss')
        self._quality = declare(self, 'jpeg_quality', 90, 'quality of a JPEG', limits=(1, 100))
        self._flush_period_s = declare(
            self, 'flush_period_s', 0.5, 'seconds of a take that a sudden death may cost',
            limits=(0.05, 1.0))
        self._queue_frames = declare(
            self, 'queue_frames', 60, 'frames that may wait for the disk before one is dropped',
            limits=(1, 1000))
        self._camera_wait_s = declare(
            self, 'camera_wait_s', 3.0, 'seconds that a start waits for an image before it is '
            'refused', limits=(0.0, 60.0))
        if self._format not in images.FORMATS:
            raise UserError('unknown image_format', got=repr(self._format),
                            expected=' or '.join(images.FORMATS))

        self._state = IDLE
        self._take: Recording | None = None
        self._began_s = 0.0
        self._last_path, self._last_verdict = '', ''
        self._said = ''
        self._frame_times: deque[float] = deque()
        self._last_image = None
        self._first_image: Future | None = None
        self._source, self._source_s = 'unknown', 0.0
        self._nonfinite = 0
        self._camera_problem = self._command_problem = ''

        self._camera_topic, self._camera_type = camera(self, transport)
        self._encode = (images.compressed_bytes if transport == 'compressed' else partial(
            images.encode_message, image_format=self._format, quality=self._quality))
        self._command_topic = self.resolve_topic_name('cmd_vel')
        self._command_type = ''
        self._command_subscription = None

        self.create_subscription(self._camera_type, self._camera_topic, self._on_image,
                                 qos_profile_sensor_data)
        self.create_subscription(String, 'instruction', self._on_instruction, LATCHED)
        self.create_subscription(DiagnosticStatus, 'guard/status', self._on_guard, BEST_EFFORT)
        self._status = self.create_publisher(DiagnosticStatus, '~/status', COMMAND_DEPTH)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        # An answer may wait for an image or for the disk; only its own group may wait with it.
        services = ReentrantCallbackGroup()
        for name, answer in (('start', self._start), ('stop', partial(self._stop, 'unknown')),
                             ('success', partial(self._stop, 'success')),
                             ('failure', partial(self._stop, 'failure')),
                             ('discard', self._discard)):
            self.create_service(Trigger, f'~/{name}', partial(self._serve, answer),
                                callback_group=services)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(GRAPH_PERIOD_S, self._look_at_graph, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._tell, clock=steady)

    def on_exit(self):
        """Close a take in progress: it is as whole as one that was stopped by service."""
        take = self._take
        if take is not None:
            if self._state == RECORDING:
                take.event('stop', self._now_ns(), 'the recorder was shut down')
                take.finish('unknown')
            if not take.join(CLOSE_S):
                self.get_logger().error(f'{take.part_path} could not be closed in time')
            elif take.path or take.error:
                self.get_logger().info(take.error or f'closed {take.path}')

    # --- what is heard: stored, and handed to the take ---

    def _on_image(self, message: Image | CompressedImage):
        now_s = time.monotonic()
        received_ns = self._now_ns()
        self._frame_times.append(now_s)
        self._forget_old_frames(now_s)
        self._last_image = message
        if self._first_image is not None and not self._first_image.done():
            self._first_image.set_result(True)
        if self._state == RECORDING:
            self._take.frame(partial(self._encode, message), time_ns(message.header.stamp),
                             received_ns)

    def _on_twist(self, message: Twist):
        now_ns = self._now_ns()
        self._on_command(message, now_ns, now_ns)

    def _on_twist_stamped(self, message: TwistStamped):
        self._on_command(message.twist, time_ns(message.header.stamp), self._now_ns())

    def _on_command(self, twist: Twist, stamp_ns: int, received_ns: int):
        if self._state != RECORDING:
            return
        values = twist_array(twist)
        if not np.isfinite(values).all():
            self._nonfinite += 1
            self._take.event('problem', received_ns, 'a command was not finite, and is left out')
            return
        fresh = time.monotonic() - self._source_s < GUARD_FRESH_S
        self._take.command(Command(values, stamp_ns, received_ns,
                                   self._source if fresh else 'unknown'))

    def _on_guard(self, message: DiagnosticStatus):
        source = next((pair.value for pair in message.values if pair.key == 'source'), '')
        self._source = source if source in SOURCES else 'unknown'
        self._source_s = time.monotonic()

    def _on_instruction(self, message: String):
        self._instruction = message.data

    def _look_at_graph(self):
        """Find the publishers of the camera and of cmd_vel, and the type that the latter has."""
        cameras = self.get_publishers_info_by_topic(self._camera_topic)
        self._camera_problem = wrong_camera(self._camera_topic, cameras, self._camera_type)
        if not cameras:
            self._camera_problem = f'no camera: nobody publishes {self._camera_topic}'
        commanders = self.get_publishers_info_by_topic(self._command_topic)
        found, self._command_problem = command_type(self._command_topic, commanders, COMMAND_TYPES)
        still_there = any(info.topic_type == self._command_type for info in commanders)
        if found and not still_there:
            self._listen_for(found)

    def _listen_for(self, found: str):
        if self._command_subscription is not None:
            self.destroy_subscription(self._command_subscription)
        heard = self._on_twist if found.endswith('/Twist') else self._on_twist_stamped
        self._command_subscription = self.create_subscription(
            COMMAND_TYPES[found], self._command_topic, heard, COMMAND_DEPTH)
        self._command_type = found
        if self._take is not None:
            self._take.late(command_type=found)

    # --- services: a sentence for every answer ---

    async def _serve(self, answer, _request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = await answer()
            response.success = True
            self.get_logger().info(response.message)
        except UserError as error:
            response.message = self._said = str(error)
            self.get_logger().warning(response.message)
        self._tell()
        return response

    async def _start(self) -> str:
        if self._state != IDLE:
            raise UserError(f'a take is {self._state} already',
                            got=self._take.part_path.name if self._take else 'a second start',
                            remedy='stop it first')
        self._info()  # what is wrong with it is said at once, not after the wait
        self._state = STARTING
        try:
            await self._camera()
            self._encode(self._last_image)
            writer = EpisodeWriter(self._data_dir, self._info(), time.time_ns(),
                                   flush_period_s=self._flush_period_s)
            self._take = Recording(writer, queue_frames=self._queue_frames,
                                   steady_ns=time.monotonic_ns)
            self._take.event('start', self._now_ns())
            self._state = RECORDING
        finally:
            if self._state == STARTING:
                self._state = IDLE
        self._began_s, self._nonfinite, self._said = time.monotonic(), 0, ''
        warning = f' ({self._command_problem})' if self._command_problem else ''
        return f'recording {writer.part_path}{warning}'

    def _info(self) -> EpisodeInfo:
        image = self._last_image
        return EpisodeInfo(
            self._instruction, operator=self._operator, robot=self._robot,
            image_topic=self._camera_topic, command_topic=self._command_topic,
            command_type=self._command_type,
            frame_id=image.header.frame_id if image is not None else '',
            ros_version=f'{os.environ.get("ROS_DISTRO", "")} '
                        f'{rclpy.get_rmw_implementation_identifier()}'.strip())

    async def _camera(self):
        """Wait for an image that is fresh; a recorder that was just started may need a moment."""
        now_s = time.monotonic()
        if self._frame_times and now_s - self._frame_times[-1] < CAMERA_FRESH_S:
            return
        self._first_image = Future()
        patience = self.create_timer(
            self._camera_wait_s, partial(_give_up, self._first_image),
            clock=Clock(clock_type=ClockType.STEADY_TIME))
        came = await self._first_image
        self.destroy_timer(patience)
        self._first_image = None
        if not came:
            raise UserError(
                self._camera_problem or f'no image came on {self._camera_topic}',
                got=f'nothing in {self._camera_wait_s} s', remedy='start the camera first')

    async def _stop(self, outcome: str) -> str:
        take = self._running()
        if outcome != 'unknown':
            take.event('outcome', self._now_ns(), outcome)
        take.event('stop', self._now_ns())
        await self._end(partial(take.finish, outcome))
        if take.error:
            raise UserError(take.error)
        self._last_path = str(take.path)
        self._last_verdict = '; '.join([take.health['verdict'], *take.health['reasons']])
        return f'{self._last_path} ({self._last_verdict})'

    async def _discard(self) -> str:
        take = self._running()
        await self._end(take.discard)
        if take.error:
            raise UserError(take.error)
        return f'discarded {take.part_path.name}'

    def _running(self) -> Recording:
        if self._state != RECORDING:
            raise UserError('no take is being recorded', got=f'the recorder is {self._state}',
                            remedy='start one first')
        return self._take

    async def _end(self, end):
        """Have the take closed without keeping any other callback waiting."""
        done = Future(executor=self.executor)
        self._state = CLOSING
        end(on_done=partial(done.set_result, True))
        await done
        self._take, self._state = None, IDLE

    # --- what is told ---

    def _tell(self):
        self._forget_old_frames(time.monotonic())
        take = self._take
        if take is not None and take.error and self._state == RECORDING:
            # Nothing more can be written; what was flushed stays to be recovered.
            self._said, self._take, self._state = take.error, None, IDLE
            self.get_logger().error(take.error)
        values = {
            'instruction': self._instruction,
            'episode': take.part_path.name if take else '',
            'seconds': f'{time.monotonic() - self._began_s:.1f}' if take else '0.0',
            'frames': take.frames if take else 0,
            'commands': take.commands if take else 0,
            'drops': take.drops if take else 0,
            'queue': take.queued if take else 0,
            'camera_hz': f'{self._camera_hz():.1f}',
            'command_type': self._command_type,
            'source': self._source,
            'last_episode': self._last_path,
            'last_verdict': self._last_verdict,
            'problem': '; '.join(self._problems()),
        }
        level = DiagnosticStatus.WARN if values['problem'] else DiagnosticStatus.OK
        status = status_message(self.get_fully_qualified_name().lstrip('/'), self._state, values,
                                level)
        self._status.publish(status)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _problems(self) -> list[str]:
        take = self._take
        found = [self._camera_problem, self._command_problem, self._said]
        if take is not None:
            found.append(take.problem or '')
            found.append(f'{self._nonfinite} commands were not finite' if self._nonfinite else '')
        return [problem for problem in found if problem]

    def _camera_hz(self) -> float:
        times = self._frame_times
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def _forget_old_frames(self, now_s: float):
        while self._frame_times and now_s - self._frame_times[0] > RATE_SPAN_S:
            self._frame_times.popleft()

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _give_up(future: Future):
    if not future.done():
        future.set_result(False)


def main(args: list[str] | None = None) -> int:
    """Run the recorder."""
    return run('recorder_node', RecorderNode, args=args)


if __name__ == '__main__':
    sys.exit(main())
