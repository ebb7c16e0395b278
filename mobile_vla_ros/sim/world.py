"""The physics of one scene: a base with limits among objects, in MuJoCo."""

import functools
import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from mobile_vla_ros.sim.camera import load_mujoco
from mobile_vla_ros.sim.scene import CAMERA_AHEAD_M, DIFF, Scene, SceneObject
from mobile_vla_ros.types import NANOSECONDS

if TYPE_CHECKING:
    import mujoco

FAR_M = 20.0
SLIP_TIME_S = 0.8


@dataclass(frozen=True)
class BaseLimits:
    """
    The limits of the base, whatever its commands.

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


# A TurtleBot 4: its base, the Create 3, does 0.46 m/s, 1.9 rad/s and 0.9 m/s².
# Source: iRobot Create 3 documentation, "Drive goals" and "Odometry and TF".
DIFF_LIMITS = BaseLimits(planar=0.46, turn=1.9, planar_acceleration=0.9)
# The caster swivels within about this way of the floor under it; until then the wheels follow a
# command this many times as slowly.
CASTER_TRAIL_M = 0.04
CASTER_LAG = 3.0
# Of the caster, behind the axle.
CASTER_BEHIND_M = 0.12


class World:
    """
    One scene with its base, at the scene's start and as fast as the scene begins.

    :ivar pose: (3,) x, y (m) and yaw (rad) of the base in the room; ``place`` applies it.
    :ivar velocity: (3,) vx, vy (m/s) and wz (rad/s) of the wheels, in the base's axes.
    :param width: of the images, pixels; likewise ``height``.
    """

    def __init__(self, scene: Scene, limits: BaseLimits, width: int, height: int) -> None:
        self.scene = scene
        self.model = build(scene, width, height)
        self.data = load_mujoco().MjData(self.model)
        self.first_object: int = self.model.geom('object_0').id
        self.pose = np.array(scene.start, dtype=np.float64)
        self.velocity = np.array([*scene.start_velocity, 0.0])
        self._limits = limits
        self._caster = math.pi  # where it points: it trails behind
        self._base: int = self.model.geom('base').id
        self._slip = np.zeros(2)
        self._rng = np.random.default_rng([scene.seed, 1])
        self.place()

    @property
    def touching(self) -> bool:
        """Whether the base is in contact with an object or a wall."""
        return self.data.ncon > 0

    @property
    def speed(self) -> float:
        """Of the base over the floor, m/s."""
        return math.hypot(*self.velocity[:2])

    def place(self) -> None:
        """Apply ``pose``, and find contacts."""
        mujoco = load_mujoco()
        self.data.qpos[:] = self.pose
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)

    def move(self, wanted: np.ndarray, time_ns: int, dt: float) -> None:
        """
        Move the base for a time step.

        :param wanted: (3,) commanded vx, vy (m/s) and wz (rad/s).
        :param time_ns: since the trial began.
        :param dt: length of the step, seconds.
        """
        limits = self._limits
        lag_s = limits.lag_s
        if self.scene.base == DIFF:
            wanted = wanted * (1, 0, 1)
            lag_s *= self._caster_lag(dt)
        wanted = np.append(
            _shorten(wanted[:2], limits.planar), np.clip(wanted[2], -limits.turn, limits.turn)
        )
        change = (wanted - self.velocity) * (1 - math.exp(-dt / lag_s))
        self.velocity[:2] += _shorten(change[:2], limits.planar_acceleration * dt)
        self.velocity[2] += np.clip(
            change[2], -limits.turn_acceleration * dt, limits.turn_acceleration * dt
        )
        # A slow wander of the floor under turning wheels (an Ornstein-Uhlenbeck process).
        keep = math.exp(-dt / SLIP_TIME_S)
        self._slip = (
            keep * self._slip
            + math.sqrt(1 - keep * keep) * self._rng.normal(0, 1, 2) * self.scene.slip
        )
        planar = self.velocity[:2]
        planar = planar + self._slip * min(1.0, math.hypot(*planar) / 0.2)
        planar = planar + self.scene.disturbance.push_at(time_ns / NANOSECONDS)
        middle = self.pose[2] + 0.5 * dt * self.velocity[2]
        cos, sin = math.cos(middle), math.sin(middle)
        self.pose += dt * np.array(
            [
                cos * planar[0] - sin * planar[1],
                sin * planar[0] + cos * planar[1],
                self.velocity[2],
            ]
        )
        self.place()

    def _caster_lag(self, dt: float) -> float:
        """Let the caster swivel; return the factor by which the wheels follow more slowly."""
        ahead, left = self.velocity[0], -CASTER_BEHIND_M * self.velocity[2]
        off = math.remainder(math.atan2(left, ahead) + math.pi - self._caster, math.tau)
        swivelled = 1 - math.exp(-math.hypot(ahead, left) * dt / CASTER_TRAIL_M)
        self._caster += off * swivelled
        return 1 + (CASTER_LAG - 1) * (1 - math.cos(off)) / 2

    def gap(self, index: int) -> float:
        """Return metres from the base's surface to that of an object."""
        return load_mujoco().mj_geomDistance(
            self.model, self.data, self._base, self.first_object + index, FAR_M, None
        )

    def nearest_gap(self) -> float:
        """Return metres between the base and the nearest object."""
        return min(self.gap(i) for i in range(len(self.scene.objects)))


def _shorten(vector: np.ndarray, longest: float) -> np.ndarray:
    length = math.hypot(*vector)
    return vector if length <= longest else vector * (longest / length)


@functools.cache
def _empty_arena() -> 'mujoco.MjSpec':
    xml = resources.files('mobile_vla_ros').joinpath('assets').joinpath('arena.xml')
    return load_mujoco().MjSpec.from_string(xml.read_text())


def build(scene: Scene, width: int, height: int) -> 'mujoco.MjModel':
    """Return ``assets/arena.xml`` with the objects and the appearance of a scene, compiled."""
    spec = _empty_arena().copy()
    appearance = scene.appearance
    getattr(spec.visual, 'global').offwidth = width
    getattr(spec.visual, 'global').offheight = height
    spec.visual.headlight.ambient = [appearance.ambient] * 3
    lamp = spec.light('lamp')
    lamp.dir = appearance.lamp_direction
    lamp.diffuse = [appearance.lamp] * 3
    for name, pattern, rgb in (
        ('floor', appearance.floor_pattern, appearance.floor_rgb),
        ('wall', appearance.wall_pattern, appearance.wall_rgb),
    ):
        texture = spec.texture(name)
        texture.builtin = getattr(load_mujoco().mjtBuiltin, f'mjBUILTIN_{pattern.upper()}')
        texture.rgb1, texture.rgb2 = rgb
    camera = spec.camera('front')
    camera.pos = [CAMERA_AHEAD_M, 0, appearance.camera_height]
    camera.fovy = math.degrees(appearance.camera_fov)  # always degrees, whatever its compiler has
    tilt = appearance.camera_tilt
    camera.alt.xyaxes = [0, -1, 0, math.sin(tilt), 0, math.cos(tilt)]
    for i, thing in enumerate(scene.objects):
        _add(spec, f'object_{i}', thing)
    for i, thing in enumerate(scene.clutter):
        _add(spec, f'clutter_{i}', thing)
    return spec.compile()


def _add(spec: 'mujoco.MjSpec', name: str, thing: SceneObject) -> None:
    mujoco, half = load_mujoco(), thing.height / 2
    kind, size = {
        'box': (mujoco.mjtGeom.mjGEOM_BOX, [thing.radius, thing.radius, half]),
        'cylinder': (mujoco.mjtGeom.mjGEOM_CYLINDER, [thing.radius, half, 0]),
        'ball': (mujoco.mjtGeom.mjGEOM_SPHERE, [thing.radius, 0, 0]),
        'cone': (mujoco.mjtGeom.mjGEOM_MESH, [0, 0, 0]),
    }[thing.shape]
    body = spec.worldbody.add_body(name=name, pos=[thing.x, thing.y, half])
    geom = body.add_geom(
        name=name, type=kind, size=size, rgba=[*thing.rgb, 1.0], contype=2, conaffinity=1
    )
    if thing.shape == 'cone':
        mesh = spec.add_mesh(name=name, scale=[thing.radius, thing.radius, half])
        mesh.make_cone(nedge=24, radius=0)
        geom.meshname = name
