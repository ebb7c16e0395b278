"""Scenes: everything that one seed decides about an episode in the arena."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

SHAPES = ('box', 'cylinder', 'ball', 'cone')
COLOURS = {
    'red': (0.85, 0.10, 0.10),
    'green': (0.10, 0.62, 0.18),
    'blue': (0.10, 0.28, 0.85),
    'yellow': (0.95, 0.85, 0.10),
    'purple': (0.52, 0.14, 0.62),
    'orange': (0.98, 0.48, 0.05),
}
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)

FLOOR_PATTERNS = ('flat', 'checker', 'gradient')

# The base must fit between an object and its neighbour's line of approach, with room to spare.
BASE_RADIUS_M = 0.18
LATERAL_GAP_M = 0.12
# The camera's place before the middle of the base, and the view of the narrowest one less a
# margin, so that every object is wholly in the first frame.
CAMERA_AHEAD_M = 0.16
HALF_VIEW_RAD = math.radians(28)
HALF_WIDTH_M = 1.05
MAX_DRAWS = 10_000


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
    wall_rgb: tuple[float, float, float]
    noise: float


@dataclass(frozen=True)
class Scene:
    """
    One episode's world and task.

    :param target: index into ``objects`` of what the instruction means.
    :param start: x, y (m) and yaw (rad) of the base at the beginning.
    :param slip: standard deviation of the slow drift of the wheels over the floor, m/s. The drift
        is not in the commands, so an expert's takes show how to recover from it.
    """

    seed: int
    objects: tuple[SceneObject, ...]
    target: int
    instruction: str
    start: tuple[float, float, float]
    look: Look
    slip: float = 0.0

    @property
    def goal(self) -> SceneObject:
        """The object that the instruction means."""
        return self.objects[self.target]


def generate(seed: int, *, pairs: Sequence[tuple[str, str]] = PAIRS,
             counts: Sequence[int] = (2, 3, 4), slip: float = 0.0) -> Scene:
    """
    Draw a scene.

    The objects stand 1.8 to 2.8 m ahead and to the sides, all in view of the start and none
    hidden; along the line straight ahead to each of them the base touches no other.

    :param pairs: the (colour, shape) pairs to draw from; a scene has no pair twice.
    :param counts: how many objects there may be.
    """
    rng = np.random.default_rng(seed)
    count = int(rng.choice(counts))
    for _ in range(MAX_DRAWS):
        start = (rng.uniform(-0.1, 0.1), rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1))
        objects = _draw_objects(rng, [pairs[i] for i in rng.choice(len(pairs), count, False)])
        if objects and _in_view(objects, start):
            break
    else:
        raise RuntimeError(f'no layout of {count} objects found for seed {seed}')
    target = int(rng.integers(count))
    return Scene(seed=seed, objects=tuple(objects), target=target,
                 instruction=f'go to the {objects[target].name}',
                 start=tuple(float(v) for v in start), look=draw_look(rng), slip=slip)


def begin_near(scene: Scene) -> Scene:
    """
    Return a scene whose base begins just before its target, at times too near to it.

    Takes of such scenes show when to stop and how to back off, which is a small part of a take
    that comes from far.
    """
    rng = np.random.default_rng([scene.seed, 4])
    goal = scene.goal
    for _ in range(MAX_DRAWS):
        gap = rng.uniform(0.06, 0.8)
        x = goal.x - goal.radius - BASE_RADIUS_M - gap
        y = goal.y + rng.uniform(-0.15, 0.15)
        if all(math.hypot(thing.x - x, thing.y - y) > thing.radius + BASE_RADIUS_M + 0.05
               for thing in scene.objects):
            break
    else:
        raise RuntimeError(f'no room before the target of seed {scene.seed}')
    return replace(scene, start=(float(x), float(y), float(rng.uniform(-0.1, 0.1))))


def _draw_objects(rng: np.random.Generator, names: Sequence[tuple[str, str]],
                  ) -> list[SceneObject] | None:
    """Draw objects far enough apart that the base can come straight ahead to each, or None."""
    radii = rng.uniform(0.14, 0.21, len(names))
    steps = BASE_RADIUS_M + np.maximum(radii[:-1], radii[1:]) + LATERAL_GAP_M
    slack = 2 * HALF_WIDTH_M - steps.sum()
    if slack < 0:
        return None
    lateral = (np.append(0, steps.cumsum()) + np.sort(rng.uniform(0, slack, len(names)))
               - HALF_WIDTH_M)
    return [_draw_object(rng, colour, shape, float(y), float(radius))
            for (colour, shape), y, radius in zip(names, lateral, radii, strict=True)]


def _draw_object(rng: np.random.Generator, colour: str, shape: str, y: float,
                 radius: float) -> SceneObject:
    height = 2 * radius if shape == 'ball' else float(rng.uniform(0.28, 0.5))
    rgb = np.array(COLOURS[colour]) * rng.uniform(0.88, 1.1) + rng.normal(0, 0.02, 3)
    return SceneObject(shape=shape, colour=colour, rgb=tuple(float(c) for c in rgb.clip(0, 1)),
                       x=float(rng.uniform(1.8, 2.8)), y=y, radius=radius, height=height)


def _in_view(objects: list[SceneObject], start: tuple[float, float, float]) -> bool:
    """Whether every object lies wholly in the first frame and none before another."""
    x, y, yaw = start
    x, y = x + CAMERA_AHEAD_M * math.cos(yaw), y + CAMERA_AHEAD_M * math.sin(yaw)
    spans = []
    for thing in objects:
        dx, dy = thing.x - x, thing.y - y
        middle = math.atan2(dy, dx) - yaw
        reach = thing.radius * (math.sqrt(2) if thing.shape == 'box' else 1.0)
        half = math.asin(min(1.0, 1.05 * reach / math.hypot(dx, dy)))
        spans.append((middle - half, middle + half))
    spans.sort()
    return (spans[0][0] > -HALF_VIEW_RAD and spans[-1][1] < HALF_VIEW_RAD
            and all(a[1] < b[0] for a, b in itertools.pairwise(spans)))


def draw_look(rng: np.random.Generator) -> Look:
    """Draw camera, light, floor and walls; the floor and walls are never as vivid as an object."""
    def dull(low: float, high: float) -> tuple[float, float, float]:
        grey = rng.uniform(low, high)
        return tuple(float(c) for c in np.clip(grey + rng.normal(0, 0.03, 3), 0, 1))

    return Look(
        camera_height=float(rng.uniform(0.32, 0.38)),
        camera_tilt=float(rng.uniform(0.14, 0.22)),
        camera_fov=math.radians(float(rng.uniform(58, 63))),
        lamp_direction=(float(rng.uniform(-0.6, 0.8)), float(rng.uniform(-0.7, 0.7)), -1.0),
        lamp=float(rng.uniform(0.4, 0.6)),
        ambient=float(rng.uniform(0.4, 0.55)),
        floor_pattern=str(rng.choice(FLOOR_PATTERNS)),
        floor_rgb=(dull(0.2, 0.6), dull(0.2, 0.6)),
        wall_rgb=dull(0.55, 0.95),
        noise=float(rng.uniform(1.0, 5.0)))
