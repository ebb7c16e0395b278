"""Scenes: everything about an episode in the arena that one seed decides."""

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

# The tasks, each with its fraction of the scenes.
GO_TO, OF_TWO, BESIDE, PASS, STOP = 'go_to', 'of_two', 'beside', 'pass', 'stop'
KINDS = {GO_TO: 0.48, OF_TWO: 0.14, BESIDE: 0.14, PASS: 0.16, STOP: 0.08}

# The bases: one that also drives sideways, and one with two driven wheels and a caster.
OMNI, DIFF = 'omni', 'diff'

PATTERNS = ('flat', 'checker', 'gradient')

BASE_RADIUS_M = 0.18
CAMERA_AHEAD_M = 0.16
# Where a driver stops: this far before a thing, surface to surface; or beside it, this far before
# its middle and with this gap, where the camera still sees a part of it.
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
        """Colour and shape, as in an instruction."""
        return f'{self.colour} {self.shape}'

    @property
    def reach(self) -> float:
        """Metres from its middle to its farthest edge on the floor."""
        return self.radius * (math.sqrt(2) if self.shape == 'box' else 1.0)


@dataclass(frozen=True)
class Appearance:
    """
    Everything that changes only the image.

    :param camera_height: metres above the floor.
    :param camera_tilt: radians below the horizon.
    :param camera_fov: vertical field of view, radians.
    :param lamp_direction: direction of the lamp's light, world axes.
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
    The meaning of a scene's instruction.

    :param kind: one of ``KINDS``.
    :param target: index of its object in the scene; None to stop.
    :param side: left or right, as the driver sees it; empty for tasks without a side.
    :param obstacles: indices of the objects to pass on that side.
    """

    kind: str
    target: int | None = None
    side: str = ''
    obstacles: tuple[int, ...] = ()


@dataclass(frozen=True)
class Disturbance:
    """
    Disturbances of a drive.

    :param pushes: pushes of the base for ``PUSH_S``: when (s), and how fast ahead and to the left
        (m/s, in the base's axes).
    :param drop: fraction of the camera's frames that are lost.
    :param late: fraction of them that arrive ``late_s`` late.
    """

    pushes: tuple[tuple[float, float, float], ...] = ()
    drop: float = 0.0
    late: float = 0.0
    late_s: float = 0.15

    def push_at(self, time_s: float) -> tuple[float, float]:
        """Return m/s ahead and to the left to add to the wheels' velocity."""
        for begin_s, ahead, left in self.pushes:
            if begin_s <= time_s < begin_s + PUSH_S:
                return ahead, left
        return 0.0, 0.0

    def delay_of(self, seed: int, stamp_ns: int) -> int | None:
        """Return by how many nanoseconds the frame with this stamp is late; None if it is lost."""
        chance = np.random.default_rng([seed, 5, stamp_ns]).uniform()
        if chance < self.drop:
            return None
        return round(self.late_s * NANOSECONDS) if chance < self.drop + self.late else 0


@dataclass(frozen=True)
class Scene:
    """
    One episode's world and task.

    :param clutter: dull things near the walls, named by no instruction.
    :param start: x, y (m) and yaw (rad) of the base at the beginning.
    :param start_velocity: vx, vy (m/s) in the base's axes at the beginning.
    :param slip: standard deviation of the slow drift of the wheels over the floor, m/s. The drift
        is not in the commands, so an expert's episodes show how to recover from it.
    :param base: ``omni``, or ``diff``, which does not follow linear_y.
    """

    seed: int
    objects: tuple[SceneObject, ...]
    task: Task
    instruction: str
    start: tuple[float, float, float]
    appearance: Appearance
    clutter: tuple[SceneObject, ...] = ()
    start_velocity: tuple[float, float] = (0.0, 0.0)
    slip: float = 0.0
    disturbance: Disturbance = Disturbance()
    base: str = OMNI

    @property
    def goal(self) -> SceneObject | None:
        """The object of the instruction; None to stop."""
        return None if self.task.target is None else self.objects[self.task.target]


def stop_place(scene: Scene) -> tuple[float, float]:
    """Return x and y (m, in the room) where the base should stand at the end of the task."""
    goal = scene.goal
    assert goal is not None, 'a task to stop has no place'
    if scene.task.kind == BESIDE:
        sign = 1 if scene.task.side == 'left' else -1
        return goal.x - BESIDE_BEFORE_M, goal.y + sign * beside_offset(goal)
    return goal.x - goal.radius - BASE_RADIUS_M - STOP_GAP_M, goal.y


def passing_line(scene: Scene) -> float:
    """Return y (m, in the room) of the path past the obstacles, on the instructed side."""
    passed = [scene.objects[i] for i in scene.task.obstacles]
    room = BASE_RADIUS_M + PASSING_GAP_M
    if scene.task.side == 'left':
        return max(thing.y + thing.radius for thing in passed) + room
    return min(thing.y - thing.radius for thing in passed) - room


def beside_offset(thing: SceneObject) -> float:
    """Return the distance (m) from a thing's middle to the base beside it."""
    return thing.radius + BASE_RADIUS_M + BESIDE_GAP_M


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Draw camera, light, floor and walls; the floor and walls are never as vivid as an object."""
    return Appearance(
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
    """Draw a colour near grey."""
    grey = rng.uniform(low, high)
    red, green, blue = np.clip(grey + rng.normal(0, 0.03, 3), 0, 1).tolist()
    return red, green, blue
