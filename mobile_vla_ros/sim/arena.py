"""The arena: a scene, a base that cannot do everything it is told, and a judge."""

import functools
import math
from dataclasses import dataclass
from importlib import resources

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim.camera import Camera, mujoco
from mobile_vla_ros.sim.scene import (
    BASE_RADIUS_M,
    BESIDE,
    CAMERA_AHEAD_M,
    PASS,
    STOP,
    Scene,
    SceneObject,
)
from mobile_vla_ros.types import NANOSECONDS

RUNNING, SUCCESS = 'running', 'success'
WRONG, COLLISION, TIMEOUT = 'wrong', 'collision', 'timeout'

SUBSTEP_NS = 25_000_000
FAR_M = 20.0
SLIP_TIME_S = 0.8


@dataclass(frozen=True)
class BaseLimits:
    """
    What the base can do, whatever it is told.

    :param planar: highest speed over the floor, m/s.
    :param turn: highest turning speed, rad/s.
    :param planar_acceleration: m/s².
    :param turn_acceleration: rad/s².
    :param lag_s: time constant with which the wheels follow a command.
    """

    planar: float = 0.6
    turn: float = 1.5
    planar_acceleration: float = 1.5
    turn_acceleration: float = 4.0
    lag_s: float = 0.1


@dataclass(frozen=True)
class Judge:
    """
    When a task is done, and when it has gone wrong.

    At an object: before it and turned to it. Beside it: on the side that was said. Told to stop:
    standing soon, and from then on. Past an obstacle on the other side, or at rest at another
    object, is wrong.

    :param gap_m: at an object: at most so far from it, surface to surface.
    :param bearing_rad: its centre is at most so far off straight ahead.
    :param aside_m: beside an object: so far from its side, at least and at most.
    :param before_m: its centre is so far ahead, at least and at most.
    :param speed_mps: the base stands when it is no faster,
    :param stand_s: and has been so for so long.
    :param stop_s: told to stop, it stands after so many seconds,
    :param still_s: and then for so many.
    :param settled_s: at rest for so long at another object, it has taken that for its goal.
    :param timeout_s: the time it may take in all.
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


class Arena:
    """
    One scene at a time, stepped by its user's clock. Needs no GL until ``render`` is called.

    ``time_ns`` counts from ``reset`` on, ``elapsed_ns`` only until the trial has ended; ``state``
    is running, success, wrong, collision or timeout; ``min_gap`` is the least distance in metres
    that the base has had from an object.

    :param width: of the picture, pixels.
    :param height: of the picture, pixels.
    """

    def __init__(
        self,
        width: int = 224,
        height: int = 224,
        *,
        limits: BaseLimits | None = None,
        judge: Judge | None = None,
    ):
        if not (16 <= width <= 1920 and 16 <= height <= 1920):
            raise UserError(
                'a picture of the arena has an impossible size',
                got=f'{width} x {height}',
                expected='16 to 1920 pixels a side',
            )
        self.width, self.height = width, height
        self.limits = limits or BaseLimits()
        self.judge = judge or Judge()
        self.scene: Scene | None = None
        self._camera: Camera | None = None
        self._camera_is_current = False

    def reset(self, scene: Scene) -> None:
        """Build a scene and put the base at its start, as fast as it says; time begins at 0."""
        self.scene = scene
        self._model = build(scene, self.width, self.height)
        self._data = mujoco.MjData(self._model)
        self._camera_is_current = False
        self._base = self._model.geom('base').id
        self._first_object = self._model.geom('object_0').id
        self._rng = np.random.default_rng([scene.seed, 1])
        self._noise = np.rint(
            np.random.default_rng([scene.seed, 2]).normal(
                0, scene.look.noise, self.width * self.height * 3 + 65_536
            )
        ).astype(np.int16)
        self._slip = np.zeros(2)
        self._velocity = np.array([*scene.start_velocity, 0.0])
        self._standing_ns = self._settled_ns = 0
        self._passed = False
        self.time_ns = self.elapsed_ns = 0
        self.state = RUNNING
        self._pose = np.array(scene.start, dtype=np.float64)
        self._place()
        self.min_gap = self.nearest_gap()

    @property
    def pose(self) -> tuple[float, float, float]:
        """x, y (m) and yaw (rad, -pi to pi) of the base in the room."""
        x, y, yaw = self._pose
        return float(x), float(y), math.remainder(yaw, math.tau)

    @pose.setter
    def pose(self, pose: tuple[float, float, float]) -> None:
        self._pose = np.array(pose, dtype=np.float64)
        self._velocity[:] = 0
        self._place()

    @property
    def velocity(self) -> tuple[float, float, float]:
        """vx, vy (m/s) and wz (rad/s) that the wheels make, in the base's own axes."""
        return tuple(float(v) for v in self._velocity)

    @property
    def touching(self) -> bool:
        """Whether the base is in contact with an object or a wall."""
        return self._data.ncon > 0

    def step(self, twist: np.ndarray, dt_ns: int) -> None:
        """
        Let time pass.

        :param twist: (6,) m/s and rad/s; linear_x, linear_y and angular_z are driven.
        :param dt_ns: how long the command holds.
        """
        twist = np.asarray(twist, dtype=np.float64)
        if twist.shape != (6,) or not np.isfinite(twist).all():
            raise ValueError(f'a command of the base is 6 finite numbers, got {twist}')
        wanted = twist[[0, 1, 5]]
        while dt_ns > 0:
            part = min(dt_ns, SUBSTEP_NS)
            dt_ns -= part
            self.time_ns += part
            if self.state != COLLISION:
                self._move(wanted, part / NANOSECONDS)
            self._decide(part)

    def _move(self, wanted: np.ndarray, dt: float) -> None:
        limits = self.limits
        wanted = np.append(
            _shorten(wanted[:2], limits.planar), np.clip(wanted[2], -limits.turn, limits.turn)
        )
        change = (wanted - self._velocity) * (1 - math.exp(-dt / limits.lag_s))
        self._velocity[:2] += _shorten(change[:2], limits.planar_acceleration * dt)
        self._velocity[2] += np.clip(
            change[2], -limits.turn_acceleration * dt, limits.turn_acceleration * dt
        )
        # A slow wander of the floor under turning wheels (an Ornstein-Uhlenbeck process).
        keep = math.exp(-dt / SLIP_TIME_S)
        self._slip = (
            keep * self._slip
            + math.sqrt(1 - keep * keep) * self._rng.normal(0, 1, 2) * self.scene.slip
        )
        planar = self._velocity[:2]
        planar = planar + self._slip * min(1.0, math.hypot(*planar) / 0.2)
        planar = planar + self.scene.disturbance.push_at(self.time_ns / NANOSECONDS)
        middle = self._pose[2] + 0.5 * dt * self._velocity[2]
        cos, sin = math.cos(middle), math.sin(middle)
        self._pose += dt * np.array(
            [
                cos * planar[0] - sin * planar[1],
                sin * planar[0] + cos * planar[1],
                self._velocity[2],
            ]
        )
        self._place()

    def _place(self) -> None:
        self._data.qpos[:] = self._pose
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)

    def _decide(self, dt_ns: int) -> None:
        """End a trial: at a contact, at a mistake, where the task is done, or when time is up."""
        if self.state != RUNNING:
            return
        self.elapsed_ns = self.time_ns
        if self.touching:
            self.state = COLLISION
            self.min_gap = 0.0
            self._velocity[:] = 0
            return
        self.min_gap = min(self.min_gap, self.nearest_gap())
        judge, kind = self.judge, self.scene.task.kind
        stands = math.hypot(*self._velocity[:2]) <= judge.speed_mps
        self._standing_ns = self._standing_ns + dt_ns if stands and self._is_there() else 0
        self._settled_ns = self._settled_ns + dt_ns if stands and self._is_elsewhere() else 0
        if kind == PASS:
            self._watch_the_side()
        late_ns = self.time_ns - judge.stop_s * NANOSECONDS
        enough_s = judge.still_s if kind == STOP else judge.stand_s
        rolls_on = kind == STOP and late_ns > 0 and self._standing_ns < late_ns
        if rolls_on or self._settled_ns >= judge.settled_s * NANOSECONDS:
            self.state = WRONG
        elif self.state == RUNNING and self._standing_ns >= enough_s * NANOSECONDS:
            self.state = SUCCESS
        elif self.state == RUNNING and self.time_ns >= judge.timeout_s * NANOSECONDS:
            self.state = TIMEOUT

    def _is_there(self) -> bool:
        """Whether the base is where its task may end."""
        goal, task = self.scene.goal, self.scene.task
        if task.kind == STOP:
            return True
        if task.kind == BESIDE:
            x, y, _ = self._pose
            aside = (y - goal.y) * (1 if task.side == 'left' else -1) - goal.radius
            return (
                self.judge.aside_m[0] <= aside <= self.judge.aside_m[1]
                and self.judge.before_m[0] <= goal.x - x <= self.judge.before_m[1]
            )
        return self._is_at(task.target)

    def _is_elsewhere(self) -> bool:
        """Whether the base is at an object that is not what its task is about."""
        task = self.scene.task
        return (
            task.kind not in (STOP, BESIDE)
            and any(
                self._is_at(i)
                for i in range(len(self.scene.objects))
                if i != task.target and i not in task.obstacles
            )
            and not self._is_at(task.target)
        )

    def _is_at(self, index: int) -> bool:
        thing = self.scene.objects[index]
        x, y, yaw = self._pose
        bearing = math.remainder(math.atan2(thing.y - y, thing.x - x) - yaw, math.tau)
        return abs(bearing) <= self.judge.bearing_rad and self.gap(index) <= self.judge.gap_m

    def _watch_the_side(self) -> None:
        """See on which side the obstacle is passed."""
        passed = [self.scene.objects[i] for i in self.scene.task.obstacles]
        x, y, _ = self._pose
        if self._passed or x < passed[0].x:
            return
        self._passed = True
        side = 'left' if y > sum(thing.y for thing in passed) / len(passed) else 'right'
        if side != self.scene.task.side:
            self.state = WRONG

    def gap(self, index: int | None = None) -> float:
        """
        Return metres from the base's surface to an object's.

        :param index: of the object; none: of the one that the task is about, or the nearest.
        """
        index = self.scene.task.target if index is None else index
        if index is None:
            return self.nearest_gap()
        return mujoco.mj_geomDistance(
            self._model, self._data, self._base, self._first_object + index, FAR_M, None
        )

    def nearest_gap(self) -> float:
        """Return metres between the base and the nearest object."""
        return min(self.gap(i) for i in range(len(self.scene.objects)))

    def render(self) -> np.ndarray:
        """
        Return (height, width, 3) uint8, RGB, with the sensor's noise of this scene and time.

        :raises UserError: when no GL can be had.
        """
        clean = self._lens().image(self._data)
        first = int(np.random.default_rng([self.scene.seed, self.time_ns]).integers(65_536))
        noise = self._noise[first : first + clean.size].reshape(clean.shape)
        return np.clip(clean + noise, 0, 255).astype(np.uint8)

    def objects_in_view(self) -> np.ndarray:
        """Return (height, width) int32: the index of the object at each pixel, -1 for none."""
        index = self._lens().geoms(self._data) - self._first_object
        return np.where((index >= 0) & (index < len(self.scene.objects)), index, -1)

    def _lens(self) -> Camera:
        if self._camera is None:
            self._camera = Camera(self.width, self.height)
        if not self._camera_is_current:
            self._camera.load(self._model)
            self._camera_is_current = True
        return self._camera

    def close(self) -> None:
        """Give the camera's GL context back; the arena can be used again after it."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None
            self._camera_is_current = False


def _shorten(vector: np.ndarray, longest: float) -> np.ndarray:
    length = math.hypot(*vector)
    return vector if length <= longest else vector * (longest / length)


@functools.cache
def _empty_arena() -> mujoco.MjSpec:
    xml = resources.files('mobile_vla_ros').joinpath('assets', 'arena.xml')
    return mujoco.MjSpec.from_string(xml.read_text())


def build(scene: Scene, width: int, height: int) -> mujoco.MjModel:
    """Return ``assets/arena.xml`` with the objects and the look of a scene, compiled."""
    spec = _empty_arena().copy()
    look = scene.look
    getattr(spec.visual, 'global').offwidth = width
    getattr(spec.visual, 'global').offheight = height
    spec.visual.headlight.ambient = [look.ambient] * 3
    lamp = spec.light('lamp')
    lamp.dir = look.lamp_direction
    lamp.diffuse = [look.lamp] * 3
    for name, pattern, rgb in (
        ('floor', look.floor_pattern, look.floor_rgb),
        ('wall', look.wall_pattern, look.wall_rgb),
    ):
        texture = spec.texture(name)
        texture.builtin = getattr(mujoco.mjtBuiltin, f'mjBUILTIN_{pattern.upper()}')
        texture.rgb1, texture.rgb2 = rgb
    camera = spec.camera('front')
    camera.pos = [CAMERA_AHEAD_M, 0, look.camera_height]
    camera.fovy = math.degrees(look.camera_fov)  # always in degrees, whatever its compiler is told
    camera.alt.xyaxes = [0, -1, 0, math.sin(look.camera_tilt), 0, math.cos(look.camera_tilt)]
    for i, thing in enumerate(scene.objects):
        _add(spec, f'object_{i}', thing)
    for i, thing in enumerate(scene.clutter):
        _add(spec, f'clutter_{i}', thing)
    return spec.compile()


def _add(spec: mujoco.MjSpec, name: str, thing: SceneObject) -> None:
    half = thing.height / 2
    size = {
        'box': [thing.radius, thing.radius, half],
        'cylinder': [thing.radius, half, 0],
        'ball': [thing.radius, 0, 0],
        'cone': [0, 0, 0],
    }[thing.shape]
    kind = {
        'box': mujoco.mjtGeom.mjGEOM_BOX,
        'cylinder': mujoco.mjtGeom.mjGEOM_CYLINDER,
        'ball': mujoco.mjtGeom.mjGEOM_SPHERE,
        'cone': mujoco.mjtGeom.mjGEOM_MESH,
    }[thing.shape]
    body = spec.worldbody.add_body(name=name, pos=[thing.x, thing.y, half])
    geom = body.add_geom(
        name=name, type=kind, size=size, rgba=[*thing.rgb, 1.0], contype=2, conaffinity=1
    )
    if thing.shape == 'cone':
        mesh = spec.add_mesh(name=name, scale=[thing.radius, thing.radius, half])
        mesh.make_cone(nedge=24, radius=0)
        geom.meshname = name
