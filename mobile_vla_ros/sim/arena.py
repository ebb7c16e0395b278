"""The arena: trials of scenes, with a camera and a judge."""

import math
from dataclasses import dataclass, replace

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim.camera import Camera
from mobile_vla_ros.sim.scene import BASE_RADIUS_M, BESIDE, DIFF, PASS, STOP, Scene
from mobile_vla_ros.sim.world import DIFF_LIMITS, BaseLimits, World
from mobile_vla_ros.types import NANOSECONDS

RUNNING, SUCCESS = 'running', 'success'
WRONG, COLLISION, TIMEOUT = 'wrong', 'collision', 'timeout'

SUBSTEP_NS = 25_000_000
# Noise beyond one image, so that each image begins elsewhere in it.
NOISE_RESERVE = 65_536


@dataclass(frozen=True)
class Judge:
    """
    When a task is done, and when it has gone wrong.

    At an object: in front of it and turned to it. Beside it: on the instructed side. To stop:
    standing soon, and from then on. Past an obstacle on the other side, or at rest at another
    object, is wrong.

    :param gap_m: at an object: largest distance, surface to surface.
    :param bearing_rad: largest angle of its centre off straight ahead.
    :param aside_m: beside an object: least and largest distance from its side.
    :param before_m: least and largest distance of its centre ahead.
    :param speed_mps: the base stands when it is no faster,
    :param stand_s: for at least this long.
    :param stop_s: to stop: latest start of the stand,
    :param still_s: which must last this long.
    :param settled_s: at rest for this long at another object, the base has chosen it.
    :param timeout_s: longest trial.
    """

    gap_m: float = 0.4
    bearing_rad: float = math.radians(35)
    aside_m: tuple[float, float] = (0.12, BASE_RADIUS_M + 0.5)
    before_m: tuple[float, float] = (-0.3, 1.15)
    speed_mps: float = 0.15
    stand_s: float = 0.3
    stop_s: float = 1.5
    still_s: float = 2.0
    settled_s: float = 2.5
    timeout_s: float = 20.0


@dataclass
class _Trial:
    """
    One run of a scene.

    :ivar elapsed_ns: as ``time_ns``, but only until the trial ends.
    :ivar min_gap: least distance so far between the base and an object, metres.
    :ivar standing_ns: for how long the base has stood where its task may end.
    :ivar settled_ns: for how long it has stood at another object.
    :ivar passed: whether it is past the obstacle.
    :ivar noise: of the sensor, to slice an image's from.
    """

    world: World
    noise: np.ndarray
    min_gap: float
    state: str = RUNNING
    time_ns: int = 0
    elapsed_ns: int = 0
    standing_ns: int = 0
    settled_ns: int = 0
    passed: bool = False


class Arena:
    """
    One scene at a time, stepped by its user's clock. Needs no GL until ``render`` is called.

    ``time_ns`` counts from ``reset`` on, ``elapsed_ns`` only until the trial has ended; ``state``
    is running, success, wrong, collision or timeout; ``min_gap`` is the least distance in metres
    between the base and an object so far.

    :param width: of the image, pixels.
    :param height: of the image, pixels.
    :param limits: of the base; a differential one has its own, and at most this speed.
    """

    def __init__(
        self,
        width: int = 224,
        height: int = 224,
        *,
        limits: BaseLimits | None = None,
        judge: Judge | None = None,
    ) -> None:
        if not (16 <= width <= 1920 and 16 <= height <= 1920):
            raise UserError(
                "invalid size of the arena's image",
                got=f'{width} x {height}',
                expected='16 to 1920 pixels a side',
            )
        self.width, self.height = width, height
        self.limits = limits or BaseLimits()
        self.judge = judge or Judge()
        self._trial: _Trial | None = None
        self._camera: Camera | None = None
        self._camera_world: World | None = None

    def reset(self, scene: Scene) -> None:
        """Build a scene, with the base at its start and as fast as it begins; time is 0."""
        limits = self.limits
        if scene.base == DIFF:
            limits = replace(DIFF_LIMITS, planar=min(DIFF_LIMITS.planar, limits.planar))
        world = World(scene, limits, self.width, self.height)
        size = self.width * self.height * 3 + NOISE_RESERVE
        noise = np.random.default_rng([scene.seed, 2]).normal(0, scene.appearance.noise, size)
        self._trial = _Trial(world, np.rint(noise).astype(np.int16), world.nearest_gap())

    @property
    def scene(self) -> Scene:
        """The scene of the last reset."""
        return self._world.scene

    @property
    def state(self) -> str:
        """``running``, or how the trial ended."""
        return self._current.state

    @property
    def time_ns(self) -> int:
        """Nanoseconds since the reset; set it to choose another draw of the sensor's noise."""
        return self._current.time_ns

    @time_ns.setter
    def time_ns(self, time_ns: int) -> None:
        self._current.time_ns = time_ns

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds from the reset to the end of the trial, or to now."""
        return self._current.elapsed_ns

    @property
    def min_gap(self) -> float:
        """Least distance so far between the base and an object, metres."""
        return self._current.min_gap

    @property
    def pose(self) -> tuple[float, float, float]:
        """x, y (m) and yaw (rad, -pi to pi) of the base in the room."""
        x, y, yaw = self._world.pose
        return float(x), float(y), math.remainder(yaw, math.tau)

    @pose.setter
    def pose(self, pose: tuple[float, float, float]) -> None:
        self._world.pose = np.array(pose, dtype=np.float64)
        self._world.velocity[:] = 0
        self._world.place()

    @property
    def velocity(self) -> tuple[float, float, float]:
        """vx, vy (m/s) and wz (rad/s) of the wheels, in the base's own axes."""
        vx, vy, wz = self._world.velocity
        return float(vx), float(vy), float(wz)

    @property
    def touching(self) -> bool:
        """Whether the base is in contact with an object or a wall."""
        return self._world.touching

    def step(self, twist: np.ndarray, dt_ns: int) -> None:
        """
        Let time pass.

        :param twist: (6,) m/s and rad/s; only linear_x, linear_y and angular_z count.
        :param dt_ns: how long the command holds.
        """
        twist = np.asarray(twist, dtype=np.float64)
        if twist.shape != (6,) or not np.isfinite(twist).all():
            raise ValueError(f'a command of the base is 6 finite numbers, got {twist}')
        trial = self._current
        while dt_ns > 0:
            part_ns = min(dt_ns, SUBSTEP_NS)
            dt_ns -= part_ns
            trial.time_ns += part_ns
            if trial.state != COLLISION:
                trial.world.move(twist[[0, 1, 5]], trial.time_ns, part_ns / NANOSECONDS)
            if trial.state == RUNNING:
                self._decide(trial, part_ns)

    def gap(self, index: int | None = None) -> float:
        """
        Return metres from the base's surface to an object's.

        :param index: of the object; None: the task's target, or without one the nearest.
        """
        index = self.scene.task.target if index is None else index
        return self.nearest_gap() if index is None else self._world.gap(index)

    def nearest_gap(self) -> float:
        """Return metres between the base and the nearest object."""
        return self._world.nearest_gap()

    def render(self) -> np.ndarray:
        """
        Return (height, width, 3) uint8, RGB, with the sensor's noise of this scene and time.

        :raises UserError: without GL.
        """
        trial = self._current
        clean = self._loaded_camera().image(trial.world.data)
        rng = np.random.default_rng([self.scene.seed, trial.time_ns])
        first = int(rng.integers(NOISE_RESERVE))
        noise = trial.noise[first : first + clean.size].reshape(clean.shape)
        return np.clip(clean + noise, 0, 255).astype(np.uint8)

    def objects_in_view(self) -> np.ndarray:
        """Return (height, width) int32: the index of the object at each pixel, -1 for none."""
        index = self._loaded_camera().geoms(self._world.data) - self._world.first_object
        return np.where((index >= 0) & (index < len(self.scene.objects)), index, -1)

    def close(self) -> None:
        """Release the camera's GL context; the arena remains usable."""
        if self._camera is not None:
            self._camera.close()
            self._camera = self._camera_world = None

    @property
    def _current(self) -> _Trial:
        assert self._trial is not None, 'reset the arena first'
        return self._trial

    @property
    def _world(self) -> World:
        return self._current.world

    def _loaded_camera(self) -> Camera:
        if self._camera is None:
            self._camera = Camera(self.width, self.height)
        if self._camera_world is not self._world:
            self._camera.load(self._world.model)
            self._camera_world = self._world
        return self._camera

    # --- the judge ---

    def _decide(self, trial: _Trial, dt_ns: int) -> None:
        """End a trial: at a contact, at a mistake, at the end of the task, or at the timeout."""
        trial.elapsed_ns = trial.time_ns
        world, judge, task = trial.world, self.judge, self.scene.task
        if world.touching:
            trial.state = COLLISION
            trial.min_gap = 0.0
            world.velocity[:] = 0
            return
        trial.min_gap = min(trial.min_gap, world.nearest_gap())
        stands = world.speed <= judge.speed_mps
        trial.standing_ns = trial.standing_ns + dt_ns if stands and self._is_there() else 0
        trial.settled_ns = trial.settled_ns + dt_ns if stands and self._is_elsewhere() else 0
        late_ns = trial.time_ns - judge.stop_s * NANOSECONDS
        enough_s = judge.still_s if task.kind == STOP else judge.stand_s
        rolls_on = task.kind == STOP and late_ns > 0 and trial.standing_ns < late_ns
        wrong_side = task.kind == PASS and self._passes_on_wrong_side(trial)
        if wrong_side or rolls_on or trial.settled_ns >= judge.settled_s * NANOSECONDS:
            trial.state = WRONG
        elif trial.standing_ns >= enough_s * NANOSECONDS:
            trial.state = SUCCESS
        elif trial.time_ns >= judge.timeout_s * NANOSECONDS:
            trial.state = TIMEOUT

    def _is_there(self) -> bool:
        """Return whether the base is where its task may end."""
        task, goal = self.scene.task, self.scene.goal
        if task.target is None or goal is None:
            return True
        if task.kind != BESIDE:
            return self._is_at(task.target)
        x, y, _ = self._world.pose
        aside = (y - goal.y) * (1 if task.side == 'left' else -1) - goal.radius
        return (
            self.judge.aside_m[0] <= aside <= self.judge.aside_m[1]
            and self.judge.before_m[0] <= goal.x - x <= self.judge.before_m[1]
        )

    def _is_elsewhere(self) -> bool:
        """Return whether the base is at an object other than the task's."""
        task = self.scene.task
        if task.target is None or task.kind == BESIDE:
            return False
        others = set(range(len(self.scene.objects))) - {task.target, *task.obstacles}
        return any(self._is_at(i) for i in others) and not self._is_at(task.target)

    def _is_at(self, index: int) -> bool:
        thing = self.scene.objects[index]
        x, y, yaw = self._world.pose
        bearing = math.remainder(math.atan2(thing.y - y, thing.x - x) - yaw, math.tau)
        return abs(bearing) <= self.judge.bearing_rad and self.gap(index) <= self.judge.gap_m

    def _passes_on_wrong_side(self, trial: _Trial) -> bool:
        """Return whether the base just passed the obstacle on the wrong side."""
        obstacles = [self.scene.objects[i] for i in self.scene.task.obstacles]
        x, y, _ = trial.world.pose
        if trial.passed or x < obstacles[0].x:
            return False
        trial.passed = True
        middle = sum(thing.y for thing in obstacles) / len(obstacles)
        return ('left' if y > middle else 'right') != self.scene.task.side
