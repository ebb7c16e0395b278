"""Scenes: everything that one seed decides about an episode in the arena."""

import math
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.types import NANOSECONDS

SHAPES = ('box', 'cylinder', 'ball', 'cone')
COLOURS = {
    'red': (0.85, 0.10, 0.10),
    'green': (0.10, 0.62, 0.18),
    'blue': (0.10, 0.28, 0.85),
    'yellow': (0.95, 0.85, 0.10),
    'purple': (0.52, 0.14, 0.62),
    'orange': (0.98, 0.48, 0.05),
}
Pair = tuple[str, str]
PAIRS: tuple[Pair, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)

# The tasks, and which share of the scenes each has.
GO_TO, OF_TWO, BESIDE, PASS, STOP = 'go_to', 'of_two', 'beside', 'pass', 'stop'
KINDS = {GO_TO: 0.48, OF_TWO: 0.14, BESIDE: 0.14, PASS: 0.16, STOP: 0.08}

PATTERNS = ('flat', 'checker', 'gradient')

BASE_RADIUS_M = 0.18
CAMERA_AHEAD_M = 0.16
# Where a driver stops: so far before a thing, surface to surface; or beside it, so far from its
# middle and with such a gap, where a camera of this view still sees a part of it.
STOP_GAP_M = 0.24
BESIDE_BEFORE_M = 0.85
BESIDE_GAP_M = 0.17
# Room between the base and an obstacle that it passes.
PASSING_GAP_M = 0.28
PUSH_S = 0.4


@dataclass(frozen=True)
class SceneObject:
    """
    One thing on the floor.

    :param rgb: its own tint of the colour, each part 0 to 1.
    :param x: centre on the floor, metres ahead of the room's origin.
    :param y: centre on the floor, metres to the left of it.
    :param radius: half of its width, metres.
    :param height: metres.
    """

    shape: str
    colour: str
    rgb: tuple[float, float, float]
    x: float
    y: float
    radius: float
    height: float

    @property
    def name(self) -> str:
        """Colour and shape, as an instruction says it."""
        return f'{self.colour} {self.shape}'

    @property
    def reach(self) -> float:
        """Metres from its middle to its farthest edge on the floor."""
        return self.radius * (math.sqrt(2) if self.shape == 'box' else 1.0)


@dataclass(frozen=True)
class Look:
    """
    What changes the picture and nothing else.

    :param camera_height: metres above the floor.
    :param camera_tilt: radians below the horizon.
    :param camera_fov: vertical field of view, radians.
    :param lamp_direction: where the lamp's light goes, world axes.
    :param noise: standard deviation of the sensor's noise, in steps of 0 to 255.
    """

    camera_height: float
    camera_tilt: float
    camera_fov: float
    lamp_direction: tuple[float, float, float]
    lamp: float
    ambient: float
    floor_pattern: str
    floor_rgb: tuple[tuple[float, float, float], tuple[float, float, float]]
    wall_pattern: str
    wall_rgb: tuple[tuple[float, float, float], tuple[float, float, float]]
    noise: float


@dataclass(frozen=True)
class Task:
    """
    What the instruction of a scene means.

    :param kind: one of ``KINDS``.
    :param target: index into the scene's objects of what it is about; none to stop.
    :param side: left or right, as the driver sees it; empty where no side is meant.
    :param obstacles: indices of what is to be passed on that side.
    """

    kind: str
    target: int | None = None
    side: str = ''
    obstacles: tuple[int, ...] = ()


@dataclass(frozen=True)
class Disturbance:
    """
    What goes wrong in a drive.

    :param pushes: when (s), and how fast ahead and to the left (m/s in the base's axes) the base
        is pushed for ``PUSH_S``.
    :param drop: share of the camera's frames that never arrive.
    :param late: share of them that arrive ``late_s`` late.
    """

    pushes: tuple[tuple[float, float, float], ...] = ()
    drop: float = 0.0
    late: float = 0.0
    late_s: float = 0.15

    def push_at(self, time_s: float) -> tuple[float, float]:
        """Return m/s ahead and to the left that are added to what the wheels do."""
        now = [push[1:] for push in self.pushes if push[0] <= time_s < push[0] + PUSH_S]
        return now[0] if now else (0.0, 0.0)

    def delay_of(self, seed: int, stamp_ns: int) -> int | None:
        """Return by how many nanoseconds the frame of this stamp is late; none if it is lost."""
        chance = np.random.default_rng([seed, 5, stamp_ns]).uniform()
        if chance < self.drop:
            return None
        return round(self.late_s * NANOSECONDS) if chance < self.drop + self.late else 0


@dataclass(frozen=True)
class Scene:
    """
    One episode's world and task.

    :param clutter: dull things near the walls that no instruction means.
    :param start: x, y (m) and yaw (rad) of the base at the beginning.
    :param start_velocity: vx, vy (m/s) in the base's axes at the beginning.
    :param slip: standard deviation of the slow drift of the wheels over the floor, m/s. The drift
        is not in the commands, so an expert's takes show how to recover from it.
    """

    seed: int
    objects: tuple[SceneObject, ...]
    task: Task
    instruction: str
    start: tuple[float, float, float]
    look: Look
    clutter: tuple[SceneObject, ...] = ()
    start_velocity: tuple[float, float] = (0.0, 0.0)
    slip: float = 0.0
    disturbance: Disturbance = Disturbance()

    @property
    def goal(self) -> SceneObject | None:
        """The object that the instruction is about; none when it is to stop."""
        return None if self.task.target is None else self.objects[self.task.target]


def stop_place(scene: Scene) -> tuple[float, float]:
    """Return x and y (m, in the room) where the base is to stand at the end of the task."""
    goal = scene.goal
    if scene.task.kind == BESIDE:
        sign = 1 if scene.task.side == 'left' else -1
        return goal.x - BESIDE_BEFORE_M, goal.y + sign * beside_offset(goal)
    return goal.x - goal.radius - BASE_RADIUS_M - STOP_GAP_M, goal.y


def passing_line(scene: Scene) -> float:
    """Return y (m, in the room) of the way past the obstacles, on the side that was said."""
    passed = [scene.objects[i] for i in scene.task.obstacles]
    room = BASE_RADIUS_M + PASSING_GAP_M
    if scene.task.side == 'left':
        return max(thing.y + thing.radius for thing in passed) + room
    return min(thing.y - thing.radius for thing in passed) - room


def beside_offset(thing: SceneObject) -> float:
    """Return metres to the side of a thing's middle at which the base stands beside it."""
    return thing.radius + BASE_RADIUS_M + BESIDE_GAP_M


def draw_look(rng: np.random.Generator) -> Look:
    """Draw camera, light, floor and walls; the floor and walls are never as vivid as an object."""
    return Look(
        camera_height=float(rng.uniform(0.30, 0.40)),
        camera_tilt=float(rng.uniform(0.13, 0.23)),
        camera_fov=math.radians(float(rng.uniform(66, 74))),
        lamp_direction=(float(rng.uniform(-0.6, 0.8)), float(rng.uniform(-0.7, 0.7)), -1.0),
        lamp=float(rng.uniform(0.4, 0.6)),
        ambient=float(rng.uniform(0.4, 0.55)),
        floor_pattern=str(rng.choice(PATTERNS)),
        floor_rgb=(dull(rng, 0.2, 0.6), dull(rng, 0.2, 0.6)),
        wall_pattern=str(rng.choice(PATTERNS)),
        wall_rgb=(dull(rng, 0.5, 0.95), dull(rng, 0.5, 0.95)),
        noise=float(rng.uniform(1.0, 5.0)),
    )


def dull(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draw a colour that is near grey."""
    grey = rng.uniform(low, high)
    return tuple(float(c) for c in np.clip(grey + rng.normal(0, 0.03, 3), 0, 1))
