"""
The shadow: a person drives, the policy only says what it would do, and this tells how they differ.

It publishes nothing that drives. The worst ten seconds lie in the folder ``shadow`` below
``data_dir``, as an episode with both commands.
"""

import threading
import time
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.episode.shadow import (
    FOLDER,
    WINDOW_S,
    Shadow,
    Window,
    prepare_folder,
    write_window,
)
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.params import MEGABYTE, image_params
from mobile_vla_ros.nodes.shared.messages import (
    receipt_ns,
    ros_version,
    status_array,
    status_message,
    time_ns,
    twist_array,
)
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.shared.topics import (
    CAMERA_QOS,
    CommandTopic,
    InstructionTopic,
    camera,
    wrong_camera,
)
from mobile_vla_ros.types import Command

NOT_TOLD = '(not told)'
PROPOSAL_DEPTH = 100
GRAPH_PERIOD_S = 0.2
STATUS_PERIOD_S = 0.5
FRESH_S = 1.0
SAVE_S = 20.0  # that a window under way may take at the end


class ShadowNode(Node):
    """ROS around ``episode.shadow.Shadow``."""

    def __init__(self):
        super().__init__('shadow')
        self._folder = prepare_folder(
            declare(
                self,
                'data_dir',
                '~/mobile_vla_takes',
                f'folder of the takes; in its folder {FOLDER} the worst seconds are kept',
            ),
            time.time_ns(),
        )
        self._instruction = declare(
            self,
            'instruction',
            '',
            'what the robot is told, until the topic instruction says otherwise',
        )
        self._who = {
            'operator': declare(self, 'operator', '', 'who drives'),
            'robot': declare(self, 'robot', '', 'which robot'),
        }
        kept = image_params(self)
        self._shadow = Shadow(
            MEGABYTE
            * declare(
                self,
                'buffer_mb',
                128,
                'memory for the images of the last seconds, MB',
                limits=(1, 100_000),
            ),
            declare(
                self,
                'window_s',
                WINDOW_S,
                'how many of the worst seconds are kept',
                limits=(0.5, 60.0),
            ),
        )
        self._camera_topic, self._camera_type = camera(self, kept.transport)
        self._encode = kept.encoder(self._camera_type)
        self._frame_id = self._camera_problem = self._unfit = self._unsaved = ''
        self._heard_s = {'images': 0.0, 'commands': 0.0, 'proposals': 0.0}
        self._saved: Path | None = None
        self._saved_mps = self._saved_score = 0.0
        self._saver: threading.Thread | None = None

        self.create_subscription(self._camera_type, self._camera_topic, self._on_image, CAMERA_QOS)
        self._commands = CommandTopic(self, 'cmd_vel', self._on_command, lambda _type: None)
        self.create_subscription(TwistStamped, 'shadow/cmd_vel', self._on_proposal, PROPOSAL_DEPTH)
        self._instructions = InstructionTopic(self, self._on_instruction)
        self._status = self.create_publisher(DiagnosticStatus, '~/status', 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(GRAPH_PERIOD_S, self._look, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._tell, clock=steady)

    def on_exit(self):
        """Save the worst seconds, also those that have only just passed."""
        if self._saver is not None:
            self._saver.join(SAVE_S)
        window = self._shadow.worst(time.monotonic_ns(), at_end=True)
        if window is not None:
            self._save(window, self._info(), time.time_ns())
        self.get_logger().info(
            self._unsaved
            or (
                f'the worst seconds, {self._saved_mps:.3f} m/s apart: {self._saved}'
                if self._saved
                else 'there was nothing to compare'
            )
        )

    # --- what is heard ---

    def _on_image(self, message: Image | CompressedImage, info: dict):
        self._heard_s['images'] = time.monotonic()
        self._frame_id = message.header.frame_id
        try:
            encoded = self._encode(message)
        except UserError as error:
            self._unfit = str(error)
            return
        self._unfit = ''
        self._shadow.frame(
            encoded, time_ns(message.header.stamp), receipt_ns(self, info), time.monotonic_ns()
        )

    def _on_command(self, twist: Twist, stamp_ns: int | None, info: dict, _missing: int):
        self._heard_s['commands'] = time.monotonic()
        received_ns = receipt_ns(self, info)
        self._shadow.command(
            Command(
                twist_array(twist),
                received_ns if stamp_ns is None else stamp_ns,
                received_ns,
                'teleop',
            ),
            time.monotonic_ns(),
        )

    def _on_proposal(self, message: TwistStamped, info: dict):
        self._heard_s['proposals'] = time.monotonic()
        self._shadow.proposal(
            twist_array(message.twist),
            time_ns(message.header.stamp),
            receipt_ns(self, info),
            time.monotonic_ns(),
        )

    def _on_instruction(self, instruction: str):
        self._instruction = instruction

    def _look(self):
        """Look at the graph, and see whether there are worst seconds to save."""
        cameras = self.get_publishers_info_by_topic(self._camera_topic)
        self._camera_problem = wrong_camera(self._camera_topic, cameras, self._camera_type)
        self._commands.look()
        if self._saver is not None and self._saver.is_alive():
            return
        window = self._shadow.worst(time.monotonic_ns())
        if window is not None:
            self._saver = threading.Thread(
                target=self._save, args=(window, self._info(), time.time_ns()), daemon=True
            )
            self._saver.start()

    # --- what is kept ---

    def _save(self, window: Window, info: EpisodeInfo, created_ns: int):
        """Write a window; the one before goes only when this one is whole."""
        before = self._saved
        try:
            self._saved = write_window(self._folder, info, window, created_ns)
        except (UserError, OSError) as error:
            self._unsaved = f'the worst seconds could not be saved: {error}'
            self.get_logger().error(self._unsaved)
            self._shadow.min_score = self._saved_score
            return
        self._unsaved, self._saved_mps, self._saved_score = '', window.mean_mps, window.score
        if before is not None:
            before.unlink(missing_ok=True)

    def _info(self) -> EpisodeInfo:
        return EpisodeInfo(
            self._instruction.strip() or NOT_TOLD,
            **self._who,
            image_topic=self._camera_topic,
            command_topic=self._commands.topic,
            command_type=self._commands.type,
            frame_id=self._frame_id,
            ros_version=ros_version(),
        )

    # --- what is told ---

    def _tell(self):
        silent = [
            what for what, heard_s in self._heard_s.items() if time.monotonic() - heard_s > FRESH_S
        ]
        state = f'waiting for {" and ".join(silent)}' if silent else ('comparing')
        problems = [self._camera_problem, self._commands.problem, self._unfit, self._unsaved]
        numbers = self._shadow.differences(time.monotonic_ns())
        values = {
            **{key: '' if value is None else f'{value:.3f}' for key, value in numbers.items()},
            'pairs': self._shadow.pairs,
            'worst_mps': f'{self._saved_mps:.3f}',
            'worst_episode': self._saved or '',
            'instruction': self._instruction,
            'problem': '; '.join(problem for problem in problems if problem),
        }
        level = DiagnosticStatus.WARN if silent or values['problem'] else DiagnosticStatus.OK
        status = status_message(self.get_fully_qualified_name().lstrip('/'), state, values, level)
        self._status.publish(status)
        self._diagnostics.publish(status_array(self.get_clock().now().to_msg(), status))


def main(args: list[str] | None = None) -> int:
    """Run the shadow."""
    return run('shadow_node', ShadowNode, args=args)
