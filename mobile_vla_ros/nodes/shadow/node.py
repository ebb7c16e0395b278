"""
The shadow: a person drives, the policy only proposes, and this node reports how they differ.

It publishes nothing that drives. The worst ten seconds are saved in the folder ``shadow`` below
``data_dir``, as an episode with both commands.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from mobile_vla_ros.episode.timing.command_rule import ASSUMED, known_rule
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.params import (
    MEGABYTE,
    ImageParams,
    base_command_timeout,
    image_params,
)
from mobile_vla_ros.nodes.shared.clocks import EpisodeTime, receipt_ns
from mobile_vla_ros.nodes.shared.messages import (
    ros_version,
    status_array,
    status_message,
    time_ns,
    twist_array,
    with_info,
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

NO_INSTRUCTION = '(not told)'  # as episodes store it
PROPOSAL_DEPTH = 100
GRAPH_PERIOD_S = 0.2
STATUS_PERIOD_S = 0.5
FRESH_S = 1.0
SAVE_TIMEOUT_S = 20.0  # to finish writing a window at shutdown


@dataclass(frozen=True)
class ShadowParams:
    """All values as given at start; ``declare_params`` describes each."""

    folder: Path
    instruction: str
    operator: str
    robot: str
    images: ImageParams
    buffer_bytes: int
    window_s: float
    base_command_timeout_s: float | None


def declare_params(node: Node) -> ShadowParams:
    """
    Declare every parameter and return the values.

    :raises UserError: for a value of the wrong type or out of range, or when nothing can be
        written below data_dir.
    """
    return ShadowParams(
        folder=prepare_folder(
            declare(
                node,
                'data_dir',
                '~/mobile_vla_takes',
                f'folder of the episodes; its subfolder {FOLDER} holds the worst window',
            ),
            time.time_ns(),
        ),
        instruction=declare(
            node, 'instruction', '', 'the instruction, until the topic instruction replaces it'
        ),
        operator=declare(node, 'operator', '', 'who drives'),
        robot=declare(node, 'robot', '', 'which robot'),
        images=image_params(node),
        buffer_bytes=MEGABYTE
        * declare(
            node,
            'buffer_mb',
            128,
            'memory for recent images, MB',
            limits=(1, 100_000),
        ),
        window_s=declare(
            node,
            'window_s',
            WINDOW_S,
            'length of the worst window that is saved, seconds',
            limits=(0.5, 60.0),
        ),
        base_command_timeout_s=base_command_timeout(node),
    )


class CameraTopic:
    """
    The subscription to the camera, which encodes images as an episode stores them.

    :param on_image: called with the encoded image, its time in nanoseconds (``CameraTime``) and
        the middleware's information on the message.
    """

    def __init__(
        self, node: Node, images: ImageParams, on_image: Callable[[bytes, int, dict], None]
    ):
        self.topic, self.type = camera(node, images.transport)
        self.frame_id = ''
        self.received_s = 0.0  # on the monotonic clock
        self.unreadable = ''
        self._images, self._time = images, images.time
        self._on_image = on_image
        node.create_subscription(self.type, self.topic, with_info(self._on_message), CAMERA_QOS)

    def _on_message(self, message: Image | CompressedImage, info: dict) -> None:
        self.received_s = time.monotonic()
        self.frame_id = message.header.frame_id
        try:
            encoded = self._images.encode(self._images.named(message))
        except UserError as error:
            self.unreadable = str(error)
            return
        self.unreadable = ''
        self._on_image(encoded, self._time.frame_ns(message.header.stamp, info), info)


class WindowSaver:
    """
    Writes the worst window, in a thread; a worse one replaces its file.

    :ivar saved: file and mean difference in m/s of the window on disk, None before the first.
    :ivar error: why the last window could not be saved, '' if it was.
    """

    def __init__(self, folder: Path, shadow: Shadow, log: Callable[[str], object]):
        self.saved: tuple[Path, float] | None = None
        self.error = ''
        self._folder, self._shadow, self._log = folder, shadow, log
        self._score = 0.0
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a window is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, window: Window, info: EpisodeInfo) -> None:
        """Write a window in a thread."""
        self._thread = threading.Thread(
            target=self.save, args=(window, info, time.time_ns()), daemon=True
        )
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join(SAVE_TIMEOUT_S)

    def save(self, window: Window, info: EpisodeInfo, created_ns: int) -> None:
        """Write a window; delete the previous one only when this one is complete."""
        previous = self.saved
        try:
            path = write_window(self._folder, info, window, created_ns)
        except (UserError, OSError) as error:
            self.error = f'cannot save the worst window: {error}'
            self._log(self.error)
            self._shadow.min_score = self._score
            return
        self.error, self.saved, self._score = '', (path, window.mean_mps), window.score
        if previous is not None:
            previous[0].unlink(missing_ok=True)


class ShadowNode(Node):
    """ROS around ``episode.timing.shadow.Shadow``."""

    def __init__(self) -> None:
        super().__init__('shadow')
        self._params = declare_params(self)
        self._instruction = self._params.instruction
        self._shadow = Shadow(
            self._params.buffer_bytes,
            self._params.window_s,
            known_rule(self._params.base_command_timeout_s) or ASSUMED,
        )
        self._saver = WindowSaver(self._params.folder, self._shadow, self.get_logger().error)
        self._steady_ns = EpisodeTime(self)
        self._command_s = self._proposal_s = 0.0  # when received, on the monotonic clock

        self._camera = CameraTopic(self, self._params.images, self._on_image)
        self._commands = CommandTopic(self, 'cmd_vel', self._on_command, lambda _type: None)
        self.create_subscription(
            TwistStamped, 'shadow/cmd_vel', with_info(self._on_proposal), PROPOSAL_DEPTH
        )
        self._instructions = InstructionTopic(self, self._on_instruction)
        self._status = self.create_publisher(DiagnosticStatus, '~/status', 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(GRAPH_PERIOD_S, self._update, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._report, clock=steady)

    def on_exit(self) -> None:
        """Save the worst window, even one that has only just ended."""
        saver = self._saver
        saver.join()
        window = self._shadow.worst(self._steady_ns(), at_end=True)
        if window is not None:
            saver.save(window, self._info(), time.time_ns())
        if saver.error:
            sentence = saver.error
        elif saver.saved is not None:
            path, mean_mps = saver.saved
            sentence = f'the worst window, mean difference {mean_mps:.3f} m/s: {path}'
        else:
            sentence = 'nothing to compare'
        self.get_logger().info(sentence)

    def _on_image(self, encoded: bytes, stamp_ns: int, info: dict) -> None:
        self._shadow.frame(encoded, stamp_ns, receipt_ns(self, info), self._steady_ns())

    def _on_command(self, twist: Twist, stamp_ns: int | None, info: dict, _missing: int) -> None:
        self._command_s = time.monotonic()
        steady, received_ns = self._steady_ns(), receipt_ns(self, info)
        stamp_ns = received_ns if stamp_ns is None else stamp_ns
        command = Command(twist_array(twist), stamp_ns, received_ns, 'teleop', steady)
        self._shadow.command(command, steady)

    def _on_proposal(self, message: TwistStamped, info: dict) -> None:
        self._proposal_s = time.monotonic()
        self._shadow.proposal(
            twist_array(message.twist),
            time_ns(message.header.stamp),
            receipt_ns(self, info),
            self._steady_ns(),
        )

    def _on_instruction(self, instruction: str) -> None:
        self._instruction = instruction

    def _update(self) -> None:
        """Follow the graph, and save a worse window when there is one."""
        self._commands.update()
        if self._saver.busy:
            return
        window = self._shadow.worst(self._steady_ns())
        if window is not None:
            self._saver.start(window, self._info())

    def _info(self) -> EpisodeInfo:
        return EpisodeInfo(
            self._instruction.strip() or NO_INSTRUCTION,
            operator=self._params.operator,
            robot=self._params.robot,
            image_topic=self._camera.topic,
            command_topic=self._commands.topic,
            command_type=self._commands.type,
            frame_id=self._camera.frame_id,
            camera_time=self._params.images.time.by,
            ros_version=ros_version(),
            base_command_timeout_s=self._params.base_command_timeout_s,
        )

    def _report(self) -> None:
        """Publish the status and diagnostics."""
        now_s = time.monotonic()
        received_s = {
            'images': self._camera.received_s,
            'commands': self._command_s,
            'proposals': self._proposal_s,
        }
        silent = [name for name, at_s in received_s.items() if now_s - at_s > FRESH_S]
        state = f'waiting for {" and ".join(silent)}' if silent else 'comparing'
        topic = self._camera.topic
        problems = [
            wrong_camera(topic, self.get_publishers_info_by_topic(topic), self._camera.type),
            self._commands.problem,
            self._camera.unreadable,
            self._saver.error,
        ]
        path, mean_mps = self._saver.saved or ('', 0.0)
        numbers = self._shadow.differences(self._steady_ns())
        values = {
            **{key: '' if value is None else f'{value:.3f}' for key, value in numbers.items()},
            'pairs': self._shadow.pairs,
            'worst_mps': f'{mean_mps:.3f}',
            'worst_episode': path,
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
