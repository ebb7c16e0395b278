"""
The recorder: writes the camera's frames and the robot's commands, episode by episode.

Callbacks only store. A thread per episode encodes and writes (``episode.storage.recording``), and
threads of the folder recover, count and measure (``episode_folder``): neither a slow disk nor a
long close delays a message.
"""

import os
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.nodes.recorder.black_box import NO_INSTRUCTION
from mobile_vla_ros.nodes.recorder.camera import CameraInput
from mobile_vla_ros.nodes.recorder.current_episode import RECORDING, CurrentEpisode
from mobile_vla_ros.nodes.recorder.episode_folder import EpisodeFolder
from mobile_vla_ros.nodes.recorder.extra_topics import ExtraTopics
from mobile_vla_ros.nodes.recorder.params import recorder_params
from mobile_vla_ros.nodes.recorder.services import EpisodeServices
from mobile_vla_ros.nodes.shared.clocks import EpisodeTime, receipt_ns, steady_ns
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener
from mobile_vla_ros.nodes.shared.messages import (
    ros_version,
    status_array,
    status_message,
    time_ns,
    twist_array,
)
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.shared.topics import CommandTopic, InstructionTopic
from mobile_vla_ros.safety.status import GuardStatus
from mobile_vla_ros.types import Command

STATUS_DEPTH = 10
# Best effort, to match any publisher, as the guard does.
PROPOSAL_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)

GRAPH_PERIOD_S = 0.2
STATUS_PERIOD_S = 0.5
CLOSE_S = 20.0


class RecorderNode(Node):
    """ROS around ``CurrentEpisode``: subscriptions, services (``EpisodeServices``), status."""

    def __init__(self) -> None:
        super().__init__('recorder')
        self._params = params = recorder_params(self)
        self._instruction = params.instruction
        self._folder = EpisodeFolder(
            params.data_dir,
            params.disk_floor_bytes,
            info=self.get_logger().info,
            warn=self.get_logger().error,
        )
        steady_time = EpisodeTime(self)
        self._camera = camera = CameraInput(
            self,
            params.images,
            params.expected_rate_hz,
            wait_s=params.camera_wait_s,
            steady_ns=steady_time,
            on_frame=lambda *frame: self._episode.frame(*frame),
            on_lost=lambda count: self._episode.lost(count),
        )
        self._episode = episode = CurrentEpisode(
            params,
            self._folder,
            camera.images.encode,
            lambda: self.get_clock().now().nanoseconds,
            steady_time,
        )
        self._guard = GuardStatusListener(self, steady_ns, self._on_guard_status)
        self._commands = CommandTopic(self, 'cmd_vel', self._on_command, episode.command_type)
        on_proposal: Callable[..., None] = self._on_proposal  # typed with one argument
        self._proposals = self.create_subscription(
            TwistStamped, 'policy/cmd_vel', on_proposal, PROPOSAL_QOS
        )
        self._instructions = InstructionTopic(self, self._on_instruction)
        self._extra = ExtraTopics(
            self, params, camera.topic, episode, log=self.get_logger().warning
        )
        self._status = self.create_publisher(DiagnosticStatus, '~/status', STATUS_DEPTH)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._episode_services = EpisodeServices(
            self,
            episode,
            camera,
            follow_guard=params.follow_guard,
            info=self._info,
            proposals=lambda: self.count_publishers(self._proposals.topic_name) > 0,
            warning=lambda: self._commands.problem,
            on_answer=self._publish_status,
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(GRAPH_PERIOD_S, self._check_graph, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._publish_status, clock=steady)
        self._folder.start(
            lambda: episode.recording if episode.state == RECORDING else None, camera.bytes_per_s
        )

    def on_exit(self) -> None:
        """Close an episode in progress: it is as whole as one stopped by service."""
        self._episode_services.shut_down(CLOSE_S)
        for sentence in self._episode.box.shut_down(CLOSE_S):
            self.get_logger().info(sentence)
        self._folder.close()

    # --- subscriptions ---

    def _on_command(self, twist: Twist, stamp_ns: int | None, info: dict, missing: int) -> None:
        if not self._episode.active:
            return
        if missing:
            self._episode.lose_commands(missing, 'were lost before they arrived')
        steady, received_ns = self._episode.steady_ns(), receipt_ns(self, info)
        values = twist_array(twist)
        if not np.isfinite(values).all():
            self._episode.lose_commands(1, 'were not finite')
            return
        stamp_ns = received_ns if stamp_ns is None else stamp_ns
        self._episode.command(
            Command(values, stamp_ns, received_ns, steady_ns=steady),
            info['source_timestamp'] or received_ns,
        )

    def _on_proposal(self, message: TwistStamped, info: dict) -> None:
        steady, stamp_ns = self._episode.steady_ns(), time_ns(message.header.stamp)
        self._episode.proposal(
            twist_array(message.twist), stamp_ns, receipt_ns(self, info), steady
        )

    def _on_instruction(self, instruction: str) -> None:
        changed = instruction != self._instruction
        self._instruction = instruction
        self._follow_guard()
        if changed:
            self._publish_status()

    def _on_guard_status(self, status: GuardStatus, sent_ns: int) -> None:
        self._episode.guard_status(status, sent_ns)
        why = self._episode.box.triggers.due(status)
        if why and self._episode.active:
            sentence = self._episode.trigger(why, self._info(NO_INSTRUCTION))
            self.get_logger().info(f'{why}: {sentence}')
        self._follow_guard()

    def _follow_guard(self) -> None:
        self._episode_services.follow_guard(self._guard.armed, self._instruction)

    def _check_graph(self) -> None:
        """Update the publishers of the camera and of cmd_vel, and the type of the latter."""
        self._episode.write_commands()
        cameras = self._camera.check_publishers()
        if cameras:
            self._episode.note('cameras', cameras)
        self._extra.update()
        self._commands.update()
        if self._commands.rivals:
            self._episode.note('rivals', self._commands.rivals)

    # --- status ---

    def _info(self, otherwise: str = '') -> EpisodeInfo:
        """Return the attributes of an episode; ``otherwise`` takes the place of no instruction."""
        image: Image | CompressedImage | None = self._camera.newest
        return EpisodeInfo(
            self._instruction if self._instruction.strip() else otherwise,
            operator=self._params.operator,
            robot=self._params.robot,
            image_topic=self._camera.topic,
            command_topic=self._commands.topic,
            command_type=self._commands.type,
            frame_id=image.header.frame_id if image is not None else '',
            camera_time=self._params.images.time.by,
            ros_version=ros_version(),
            base_command_timeout_s=self._params.base_command_timeout_s,
        )

    def _publish_status(self) -> None:
        self._episode_services.settle()
        for sentence in self._episode.box.settle():
            self.get_logger().info(sentence)
        self._follow_guard()
        self._extra.update()  # at once after a start
        now_ns = time.monotonic_ns()
        camera, monitor, episode = self._camera, self._camera.monitor, self._episode
        camera.clock = monitor.clock()
        camera.rate_hz = monitor.rate_hz(now_ns)
        if episode.state != RECORDING or monitor.expected_hz is None:
            monitor.learn(now_ns)
            episode.expect(monitor.expected_hz)
        values = {
            'instruction': self._instruction,
            'camera_hz': f'{camera.rate_hz:.1f}',
            'expected_hz': f'{monitor.expected_hz or 0:.1f}',
            'command_type': self._commands.type,
            'source': self._guard.source,
            'camera_time': self._params.images.time.by,
            'camera_clock': camera.clock.kind,
            **episode.values(),
            **self._folder.values(),
            'problem': '; '.join(self._problems(now_ns)),
        }
        level = DiagnosticStatus.WARN if values['problem'] else DiagnosticStatus.OK
        status = status_message(
            self.get_fully_qualified_name().lstrip('/'), episode.state, values, level
        )
        self._status.publish(status)
        self._diagnostics.publish(status_array(self.get_clock().now().to_msg(), status))

    def _problems(self, now_ns: int) -> list[str]:
        found = [self._camera.fault]
        clock = self._camera.clock
        if not clock.sane:
            found.append(self._camera.clock_sentence)
            if self._episode.note(clock.kind, clock.sentence):
                self.get_logger().warning(self._camera.clock_sentence)
        if self._episode.state == RECORDING and not self._camera.monitor.fresh(now_ns):
            found.append('no image arrives')
            self._episode.note('silent', 'no image arrives')
        found += [
            self._commands.problem,
            self._folder.disk.problem,
            self._episode_services.failure,
            self._episode.box.problem,
            *self._episode.problems(),
            *self._extra.problems,
        ]
        return [problem for problem in found if problem]


def main(args: list[str] | None = None) -> int:
    """Run the recorder."""
    status = run('recorder_node', RecorderNode, args=args)
    if any(thread.daemon for thread in threading.enumerate()):
        # A recovery still reads and writes; HDF5 must not be torn down meanwhile.
        sys.stdout.flush()
        os._exit(status)
    return status
