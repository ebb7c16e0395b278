"""
Live nodes for tests: processes that are started and killed, and a client on their graph.

The fixtures ``nodes`` and ``client`` (see conftest.py) are instances of these classes. Nothing
here imports rclpy before a client is created, so that tests of pure logic start without ROS.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from forked import ForkedProcess

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.005
# For what only has to happen: a busy machine may need seconds for what else takes milliseconds.
TIMEOUT_S = 40.0


def wait_until(
    predicate: Callable[[], object],
    timeout_s: float = TIMEOUT_S,
    what: str = 'the event',
    detail: Callable[[], str] = str,
):
    """
    Wait until ``predicate()`` is true; return its value. A busy machine gets more time.

    :param timeout_s: on a machine with a core for each process that runs.
    :param detail: returns text for the failure's message (a process's output).
    :raises AssertionError: if it is still false then.
    """
    timeout_s *= max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f'timed out after {timeout_s:.0f} s waiting for {what}\n{detail()}'
            )
        time.sleep(POLL_S)


def ros_arguments(
    params: dict | None = None,
    remappings: dict | None = None,
    params_file: str | os.PathLike | None = None,
) -> list[str]:
    """Return ``--ros-args …`` for parameters (Python values), remappings and a YAML file."""
    arguments = ['--ros-args']
    if params_file is not None:
        arguments += ['--params-file', str(params_file)]
    for key, value in (params or {}).items():
        if isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, str):
            text = "'" + value.replace("'", "''") + "'"
        elif isinstance(value, (list, tuple)):
            text = str(list(value))
        else:
            text = repr(value)
        arguments += ['-p', f'{key}:={text}']
    for source, target in (remappings or {}).items():
        arguments += ['-r', f'{source}:={target}']
    return arguments


def wait_for_status(
    inbox: 'Inbox',
    predicate: Callable[[str, dict], object],
    timeout_s: float = TIMEOUT_S,
    what: str = 'a status',
    detail: Callable[[], str] = str,
) -> dict:
    """Wait for a new status that matches ``predicate(message, values)``; return its values."""
    seen = len(inbox)

    def find():
        return next(
            (
                values
                for status in inbox.messages[seen:]
                if (values := status_values(status)) and predicate(status.message, values)
            ),
            None,
        )

    return wait_until(find, timeout_s, what, detail)


def attached(log: Path) -> set[int]:
    """Return the ids of processes whose output goes to a folder of logs."""
    found = set()
    for entry in Path('/proc').iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / 'fd' / '1')).parent == log:
                found.add(int(entry.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


class NodeProcess:
    """
    A process of ``python -m module``; its output is collected. ``inference_node`` is forked.

    :param module: a module; a name without a dot (``guard_node``) is one in mobile_vla_ros.nodes.
    :param arguments: the command line after the module.
    :param env: variables besides the test's own; not forked if given, even if empty.
    """

    def __init__(self, module: str, arguments: list[str], env: dict | None = None):
        if '.' not in module:
            module = f'mobile_vla_ros.nodes.{module}'
        self.module = module
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {
            **os.environ,
            'PYTHONUNBUFFERED': '1',
            'OMP_NUM_THREADS': '1',
            **(env or {}),
        }
        environment['PYTHONPATH'] = os.pathsep.join(
            p for p in (environment.get('PYTHONPATH'), str(ROOT)) if p
        )
        if module == 'mobile_vla_ros.nodes.inference_node' and env is None:
            self.process = ForkedProcess(
                ['-m', module, *arguments], self._log, self._log, environment
            )
            return
        self.process = subprocess.Popen(
            [sys.executable, '-m', module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors='replace')

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process.poll() is None

    def signal(self, number: int = signal.SIGTERM):
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for the end; return the exit status (negative: the signal that killed it)."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f'{self.module} did not end in {timeout_s} s\n{self.output}'
            ) from None

    def stop(self, timeout_s: float = TIMEOUT_S) -> int:
        """End the process with SIGINT, as Ctrl-C does; return its exit status."""
        if self.running:
            self.signal(signal.SIGINT)
        return self.wait(timeout_s)

    def wait_for_output(self, pattern: str, timeout_s: float = TIMEOUT_S) -> re.Match:
        """Wait until the output matches a regular expression; return the match."""

        def find():
            found = re.search(pattern, self.output)
            if not found and not self.running:
                raise AssertionError(
                    f'{self.module} ended with {self.process.poll()} before '
                    f'{pattern!r}\n{self.output}'
                )
            return found

        return wait_until(find, timeout_s, f'{pattern!r} from {self.module}', lambda: self.output)

    def close(self):
        """Kill the process if it is alive; it may be stopped (SIGSTOP) or hung."""
        if self.running:
            self.process.kill()
        self.process.wait()
        self._log.close()


def assert_refused(process: NodeProcess, words: list[str], timeout_s: float):
    """Check that a node ended with status 2 and a sentence with these words, without traceback."""
    assert process.wait(timeout_s) == 2
    assert 'Traceback' not in process.output
    for word in words:
        assert word in process.output


class Nodes:
    """Starts node processes and kills them at the end of the test."""

    def __init__(self):
        self.processes: list[NodeProcess] = []

    def start(
        self,
        module: str,
        *,
        name: str | None = None,
        namespace: str | None = None,
        params: dict | None = None,
        remappings: dict | None = None,
        params_file: str | os.PathLike | None = None,
        env: dict | None = None,
        arguments: list[str] | None = None,
    ) -> NodeProcess:
        """
        Start a node process.

        :param module: ``guard_node`` or a full module name.
        :param name: node name (``-r __node:=``).
        :param arguments: arguments before ``--ros-args``.
        """
        maps = dict(remappings or {})
        if name:
            maps['__node'] = name
        if namespace:
            maps['__ns'] = namespace if namespace.startswith('/') else f'/{namespace}'
        process = NodeProcess(
            module, [*(arguments or []), *ros_arguments(params, maps, params_file)], env
        )
        self.processes.append(process)
        return process

    def close(self):
        """Kill every process."""
        for process in reversed(self.processes):
            process.close()


class Inbox:
    """The messages that a subscription has received, oldest first."""

    def __init__(self):
        self.messages: list = []
        self.times: list[float] = []  # time.monotonic() at receipt

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def last(self):
        """The newest message, or None."""
        return self.messages[-1] if self.messages else None

    def _add(self, message):
        self.times.append(time.monotonic())
        self.messages.append(message)


class Client:
    """
    A node with its own context, spun by a thread.

    Services and topics are named as they are on the graph: ``guard/arm``, ``cmd_vel``.
    """

    def __init__(self, name: str = 'test_client', namespace: str = ''):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node(name, context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._publishers: dict = {}
        self._clients: dict = {}
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.02)

    def subscribe(
        self, topic: str, message_type: type, qos=10, callback: Callable | None = None
    ) -> Inbox:
        """Collect a topic's messages; ``callback`` also receives each, in the client's thread."""
        inbox = Inbox()

        def store(message):
            inbox._add(message)
            if callback is not None:
                callback(message)

        self.node.create_subscription(message_type, topic, store, qos)
        return inbox

    def publisher(self, topic: str, message_type: type, qos=10):
        """Return the publisher of a topic; the first call creates it."""
        key = (topic, message_type)
        if key not in self._publishers:
            self._publishers[key] = self.node.create_publisher(message_type, topic, qos)
        return self._publishers[key]

    def publish(
        self, topic: str, message, qos=10, timeout_s: float = TIMEOUT_S, kind: type | None = None
    ):
        """Publish one message as soon as there is a subscriber; ``kind``: its type, if bytes."""
        publisher = self.publisher(topic, kind or type(message), qos)
        wait_until(publisher.get_subscription_count, timeout_s, f'a subscriber of {topic}')
        publisher.publish(message)

    @contextmanager
    def stream(
        self,
        topic: str,
        make: Callable[[], object],
        rate_hz: float = 10.0,
        qos=10,
        kind: type | None = None,
    ) -> Iterator[None]:
        """
        Publish ``make()`` at a rate while the block runs, from the first subscriber on.

        :param kind: the type of the messages, if these are serialised.
        """
        first = make()
        self.publish(topic, first, qos, kind=kind)
        publisher = self.publisher(topic, kind or type(first), qos)
        done = threading.Event()

        def work():
            while not done.wait(1.0 / rate_hz):
                publisher.publish(make())

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def call(
        self,
        service: str,
        service_type: type | None = None,
        request=None,
        timeout_s: float = TIMEOUT_S,
    ):
        """
        Call a service and return its response.

        :param service_type: std_srvs/Trigger unless given.
        :param request: the request; an empty one unless given.
        """
        if service_type is None:
            from std_srvs.srv import Trigger as service_type
        key = (service, service_type)
        if key not in self._clients:
            self._clients[key] = self.node.create_client(service_type, service)
        client = self._clients[key]
        wait_until(client.service_is_ready, timeout_s, f'the service {service}')
        future = client.call_async(request if request is not None else service_type.Request())
        wait_until(future.done, timeout_s, f'the response of {service}')
        return future.result()

    def wait_for(
        self,
        predicate: Callable[[], object],
        timeout_s: float = TIMEOUT_S,
        what: str = 'the event',
    ):
        """Wait until a predicate is true; see ``wait_until``."""
        return wait_until(predicate, timeout_s, what)

    def now(self):
        """Return the ROS time as a message stamp."""
        return self.node.get_clock().now().to_msg()

    def close(self):
        """Leave the graph."""
        import rclpy

        self._closing.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def status_values(status) -> dict[str, str]:
    """Return the key-value pairs of a DiagnosticStatus as a dict."""
    return {pair.key: pair.value for pair in status.values}
