"""Scenes from seeds: the objects and their places, the task, and its instruction."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mobile_vla_ros.sim.scene import (
    BASE_RADIUS_M,
    BESIDE,
    BESIDE_BEFORE_M,
    CAMERA_AHEAD_M,
    COLOURS,
    DIFF,
    GO_TO,
    KINDS,
    OF_TWO,
    OMNI,
    PAIRS,
    PASS,
    PASSING_GAP_M,
    STOP,
    Pair,
    Scene,
    SceneObject,
    Task,
    beside_offset,
    draw_appearance,
    dull,
    passing_line,
    stop_place,
)
from mobile_vla_ros.sim.wording import instruction_for

# Spare room between an object and the base that approaches its neighbour.
LATERAL_GAP_M = 0.12
# The narrowest camera's field of view less a margin: every object is in the first frame.
HALF_VIEW_RAD = math.radians(31)
HALF_WIDTH_M = 1.15
# From clutter to where the base stands; episodes begin up to 0.2 m nearer to it.
CLUTTER_GAP_M = 0.5
MAX_DRAWS = 10_000
# A differential base begins this much farther before an obstacle, which is at least this far from
# it, passes it at most this far off the middle of the room, and needs this room beside its path.
DIFF_BEFORE_M = 0.85
DIFF_WAY_M = 2.1
DIFF_ASIDE_M = 0.66
DIFF_GAP_M = 0.08


def draw_scene(
    seed: int,
    kind: str | None = None,
    *,
    pairs: Sequence[Pair] = PAIRS,
    targets: Sequence[Pair] | None = None,
    unseen_wording: bool = False,
    slip: float = 0.0,
    base: str = OMNI,
) -> Scene:
    """
    Draw a scene and its task.

    Every object is wholly in view from the start and none is hidden (one behind an obstacle is
    visible over it). The path to where the task ends is free.

    :param kind: one of ``KINDS``; None: drawn by its fraction.
    :param pairs: the (colour, shape) pairs of the objects.
    :param targets: the pairs of the target (default: ``pairs``).
    :param unseen_wording: use sentences that no episode has.
    :param base: ``omni`` or ``diff``. A differential base reaches every object in a straight line,
        and is never to stop beside one, where its camera would not see it.
    """
    rng = np.random.default_rng(seed)
    drawn = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    kind = kind or drawn
    if base == DIFF and kind == BESIDE:
        kind = GO_TO
    for _ in range(MAX_DRAWS):
        start = (rng.uniform(-0.1, 0.1), rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1))
        if base == DIFF and kind == PASS:
            start = (start[0] - DIFF_BEFORE_M, *start[1:])
        layout = _LAYOUTS[kind](rng, _Names(rng, pairs, targets or pairs))
        if not layout or not _in_view(layout[0], start, hidden=layout[1].obstacles):
            continue
        if base == OMNI or _suits_differential(*layout, start):
            break
    else:
        raise RuntimeError(f'no layout to {kind} found for seed {seed}')
    objects, task = layout
    appearance = draw_appearance(rng)
    clutter = [thing for thing in _draw_clutter(rng) if _is_out_of_the_way(thing, objects, task)]
    velocity = (0.0, 0.0)
    if kind == STOP:
        # In the middle of a drive, when the instruction arrives.
        start = (start[0] + rng.uniform(0.0, 0.9), start[1], start[2])
        velocity = (rng.uniform(0.15, 0.45), rng.uniform(-0.25, 0.25) * (base == OMNI))
    return Scene(
        seed=seed,
        objects=tuple(objects),
        task=task,
        instruction=instruction_for(task, objects, rng, unseen=unseen_wording),
        start=start,
        appearance=appearance,
        clutter=tuple(clutter),
        start_velocity=velocity,
        slip=slip,
        base=base,
    )


def begin_near(scene: Scene) -> Scene:
    """
    Return a scene whose base begins near where its task ends, sometimes beyond it.

    Such episodes show when to stop and how to back off, which is a small part of an episode from
    far away. With an obstacle to pass, the base begins beside it.
    """
    if scene.goal is None:
        return scene
    rng = np.random.default_rng([scene.seed, 4])
    for _ in range(MAX_DRAWS):
        if scene.task.kind == PASS:
            x = scene.objects[scene.task.obstacles[0]].x + rng.uniform(-0.6, 0.5)
            y = passing_line(scene) + rng.uniform(-0.25, 0.2)
        else:
            ahead, aside = stop_place(scene)
            x, y = ahead + 0.18 - rng.uniform(0.0, 0.75), aside + rng.uniform(-0.2, 0.2)
        if all(
            math.hypot(thing.x - x, thing.y - y) > thing.reach + BASE_RADIUS_M + 0.05
            for thing in scene.objects
        ):
            break
    else:
        raise RuntimeError(f'no room before the target of seed {scene.seed}')
    yaw = rng.uniform(-0.1, 0.1)
    if scene.base == DIFF and scene.task.kind != PASS:  # it shows how to turn to it
        yaw = math.atan2(scene.goal.y - y, scene.goal.x - x) + 4 * yaw
    return replace(scene, start=(float(x), float(y), float(yaw)))


def other_instruction(scene: Scene) -> Scene:
    """
    Return the same world with another task, in the same kind of words.

    Another object, or the other side. A task to stop becomes a drive to an object.
    """
    rng = np.random.default_rng([scene.seed, 6])
    task = scene.task
    if task.side:
        side = {'left': 'right', 'right': 'left'}[task.side]
        target = task.target
        if task.kind == OF_TWO and scene.goal is not None:
            name = scene.goal.name
            target = next(
                i for i, thing in enumerate(scene.objects) if i != target and thing.name == name
            )
        other = replace(task, side=side, target=target)
    else:
        others = [i for i in range(len(scene.objects)) if i != task.target]
        other = Task(GO_TO, int(rng.choice(others)))
    return replace(scene, task=other, instruction=instruction_for(other, scene.objects, rng))


class _Names:
    """Draws the pairs of one scene: the target's, and the others in random order."""

    def __init__(
        self, rng: np.random.Generator, pairs: Sequence[Pair], targets: Sequence[Pair]
    ) -> None:
        self.target = targets[int(rng.integers(len(targets)))]
        others = [pair for pair in pairs if pair != self.target]
        self.others = [others[i] for i in rng.permutation(len(others))]


Layout = tuple[list[SceneObject], Task] | None


def _lay_out_go_to(rng: np.random.Generator, names: _Names) -> Layout:
    count = int(rng.choice((2, 3, 4)))
    pairs = [names.target, *names.others[: count - 1]]
    order = rng.permutation(count)
    objects = _draw_row(rng, [pairs[i] for i in order])
    if objects is None:
        return None
    return objects, Task(GO_TO, int(np.nonzero(order == 0)[0][0]))


def _lay_out_of_two(rng: np.random.Generator, names: _Names) -> Layout:
    count = int(rng.choice((2, 3)))
    pairs = [names.target, names.target, *names.others[: count - 2]]
    objects = _draw_row(rng, [pairs[i] for i in rng.permutation(count)])
    if objects is None:
        return None
    # The row is drawn from the right (least y) to the left.
    right, left = (
        i for i, thing in enumerate(objects) if (thing.colour, thing.shape) == names.target
    )
    side = str(rng.choice(('left', 'right')))
    return objects, Task(OF_TWO, left if side == 'left' else right, side)


def _lay_out_beside(rng: np.random.Generator, names: _Names) -> Layout:
    count = int(rng.choice((1, 2)))
    pairs = [names.target, *names.others[: count - 1]]
    order = rng.permutation(count)
    objects = _draw_row(rng, [pairs[i] for i in order], apart_m=1.05)
    if objects is None:
        return None
    target, side = int(np.nonzero(order == 0)[0][0]), str(rng.choice(('left', 'right')))
    return objects, Task(BESIDE, target, side)


def _lay_out_pass(rng: np.random.Generator, names: _Names) -> Layout:
    """Draw one low box, or two side by side, before the target: near, middle or far."""
    colours = sorted(
        colour for colour, shape in names.others if shape == 'box' and colour != names.target[0]
    )
    colour = str(rng.choice(colours))
    x, y = rng.choice((1.15, 1.4, 1.65)) + rng.uniform(-0.1, 0.1), rng.uniform(-0.25, 0.25)
    count = int(rng.choice((1, 2)))
    radius = rng.uniform(0.13, 0.18) / (1, 1.25)[count - 1]
    places = [y] if count == 1 else [y - radius - 0.01, y + radius + 0.01]
    height = rng.uniform(0.16, 0.22)
    boxes = [
        _draw_object(rng, colour, 'box', place, float(radius), x=float(x), height=float(height))
        for place in places
    ]
    target_colour, target_shape = names.target
    target = _draw_object(
        rng,
        target_colour,
        target_shape,
        float(y + rng.uniform(-0.1, 0.1)),
        float(rng.uniform(0.18, 0.22)),
        x=float(x + rng.uniform(1.75, 1.95)),
    )
    return [*boxes, target], Task(
        PASS, count, str(rng.choice(('left', 'right'))), tuple(range(count))
    )


def _lay_out_stop(rng: np.random.Generator, names: _Names) -> Layout:
    layout = _lay_out_go_to(rng, names)
    return layout and (layout[0], Task(STOP))


_LAYOUTS = {
    GO_TO: _lay_out_go_to,
    OF_TWO: _lay_out_of_two,
    BESIDE: _lay_out_beside,
    PASS: _lay_out_pass,
    STOP: _lay_out_stop,
}


def _draw_row(
    rng: np.random.Generator,
    names: Sequence[Pair],
    apart_m: float = 0.0,
) -> list[SceneObject] | None:
    """Draw objects far enough apart for a straight approach to each, or return None."""
    radii = rng.uniform(0.14, 0.21, len(names))
    steps = np.maximum(BASE_RADIUS_M + np.maximum(radii[:-1], radii[1:]) + LATERAL_GAP_M, apart_m)
    slack = 2 * HALF_WIDTH_M - steps.sum()
    if slack < 0:
        return None
    lateral = (
        np.append(0, steps.cumsum()) + np.sort(rng.uniform(0, slack, len(names))) - HALF_WIDTH_M
    )
    return [
        _draw_object(rng, colour, shape, float(y), float(radius))
        for (colour, shape), y, radius in zip(names, lateral, radii, strict=True)
    ]


def _draw_object(
    rng: np.random.Generator,
    colour: str,
    shape: str,
    y: float,
    radius: float,
    *,
    x: float | None = None,
    height: float | None = None,
) -> SceneObject:
    drawn_x, drawn_height = rng.uniform(1.8, 2.8), rng.uniform(0.28, 0.5)
    if shape == 'ball':
        height = 2 * radius
    rgb = np.array(COLOURS[colour]) * rng.uniform(0.88, 1.1) + rng.normal(0, 0.02, 3)
    red, green, blue = rgb.clip(0, 1).tolist()
    return SceneObject(
        shape=shape,
        colour=colour,
        rgb=(red, green, blue),
        x=float(drawn_x if x is None else x),
        y=y,
        radius=radius,
        height=float(drawn_height if height is None else height),
    )


def _draw_clutter(rng: np.random.Generator) -> list[SceneObject]:
    """Draw up to four dull boxes and cylinders along the walls, out of the way."""
    things = []
    for _ in range(int(rng.integers(0, 5))):
        radius = float(rng.uniform(0.08, 0.25))
        if rng.uniform() < 0.6:
            x, y = rng.uniform(4.25, 4.65), rng.uniform(-2.1, 2.1)
        else:
            x, y = rng.uniform(1.0, 4.2), float(rng.choice((-1, 1))) * rng.uniform(1.95, 2.15)
        things.append(
            SceneObject(
                shape=str(rng.choice(('box', 'cylinder'))),
                colour='grey',
                rgb=dull(rng, 0.1, 0.9),
                x=float(x),
                y=float(y),
                radius=radius,
                height=float(rng.uniform(0.15, 0.8)),
            )
        )
    return things


def _is_out_of_the_way(thing: SceneObject, objects: Sequence[SceneObject], task: Task) -> bool:
    """Return whether clutter leaves room on either side of the target to stand beside."""
    if task.kind != BESIDE or task.target is None:
        return True
    goal = objects[task.target]
    return all(
        math.hypot(thing.x - goal.x + BESIDE_BEFORE_M, thing.y - goal.y - aside)
        > thing.reach + BASE_RADIUS_M + CLUTTER_GAP_M
        for aside in (beside_offset(goal), -beside_offset(goal))
    )


def _suits_differential(
    objects: Sequence[SceneObject], task: Task, start: tuple[float, float, float]
) -> bool:
    """Return whether a base that cannot strafe drives every task of the scene with a free path."""
    x, y, _ = start
    if task.kind == PASS:
        passed = [objects[i] for i in task.obstacles]
        room = max(abs(thing.y) + thing.radius for thing in passed) + BASE_RADIUS_M
        return room + PASSING_GAP_M <= DIFF_ASIDE_M and passed[0].x - x >= DIFF_WAY_M
    for goal, other in itertools.permutations(objects, 2):
        dx, dy = goal.x - x, goal.y - y
        length = math.hypot(dx, dy)
        along = ((other.x - x) * dx + (other.y - y) * dy) / length
        across = abs((other.y - y) * dx - (other.x - x) * dy) / length
        if along < length and across < other.reach + BASE_RADIUS_M + DIFF_GAP_M:
            return False
    return True


def _in_view(
    objects: list[SceneObject], start: tuple[float, float, float], hidden: Sequence[int] = ()
) -> bool:
    """
    Return whether every object is wholly in the first frame and none hides another.

    :param hidden: indices of objects that may hide others.
    """
    x, y, yaw = start
    x, y = x + CAMERA_AHEAD_M * math.cos(yaw), y + CAMERA_AHEAD_M * math.sin(yaw)
    spans = []
    for i, thing in enumerate(objects):
        dx, dy = thing.x - x, thing.y - y
        middle = math.remainder(math.atan2(dy, dx) - yaw, math.tau)
        half = math.asin(min(1.0, 1.05 * thing.reach / math.hypot(dx, dy)))
        if max(abs(middle - half), abs(middle + half)) > HALF_VIEW_RAD:
            return False
        if i not in hidden:
            spans.append((middle - half, middle + half))
    spans.sort()
    return all(a[1] < b[0] for a, b in itertools.pairwise(spans))
