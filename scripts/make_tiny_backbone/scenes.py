"""Rendered scenes: images, the names and boxes of the objects in them, and augmentation."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.scene import PAIRS, Scene

SIZE = 168
RENDERED_SIZE = 224
CELLS = 24  # cells a side of an image's object map
MIN_PIXELS = 40  # of 168 x 168: an object with fewer is not named
MAX_OBJECTS = 5
VIEWS_PER_SCENE = 5


def render(path: Path, count: int, first_scene: int, seed: int) -> dict[str, np.ndarray]:
    """
    Render ``count`` images and store them in ``path``, or load them if it exists.

    :returns: images (N, S, S, 3) uint8; names (N, 5) int16, index into PAIRS or -1, from left to
        right; boxes (N, 5, 4) float32: left, top, right, bottom, 0 to 1; cells (N, 24, 24) int8:
        which of these objects covers a cell, or -1.
    """
    if path.exists():
        with np.load(path) as stored:
            return dict(stored)
    images = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    names = np.full((count, MAX_OBJECTS), -1, np.int16)
    boxes = np.zeros((count, MAX_OBJECTS, 4), np.float32)
    cells = np.full((count, CELLS, CELLS), -1, np.int8)
    rng = np.random.default_rng([seed, first_scene])
    arena = Arena(RENDERED_SIZE, RENDERED_SIZE)
    done, index = 0, first_scene
    with tqdm(total=count, desc=f'rendering {path.stem}', unit='image') as bar:
        while done < count:
            scene = suites.scene('pictures', index)
            index += 1
            arena.reset(scene)
            for view in range(min(VIEWS_PER_SCENE, count - done)):
                if view:
                    arena.pose = random_pose(scene, rng)
                    arena.time_ns = view  # another draw of the sensor's noise
                if arena.touching:
                    continue
                ids = arena.objects_in_view()
                seen = visible_objects(ids)[:MAX_OBJECTS]
                if not seen:
                    continue
                image = Image.fromarray(arena.render())
                images[done] = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
                for i, (thing, box) in enumerate(seen):
                    found = scene.objects[thing]
                    names[done, i] = PAIRS.index((found.colour, found.shape))
                    boxes[done, i] = box
                    cells[done][coverage(ids == thing, CELLS) > 0.3] = i
                done += 1
                bar.update()
    arena.close()
    part = path.with_suffix('.part.npz')
    data = {'images': images, 'names': names, 'boxes': boxes, 'cells': cells}
    np.savez(part, **data)
    part.rename(path)
    return data


def coverage(mask: np.ndarray, side: int) -> np.ndarray:
    """Return (side, side): the fraction of each cell of a square image that a mask covers."""
    edges = np.linspace(0, len(mask), side + 1).astype(int)[:-1]
    counts = np.add.reduceat(np.add.reduceat(mask.astype(float), edges, 0), edges, 1)
    return counts / np.add.reduceat(np.add.reduceat(np.ones(mask.shape), edges, 0), edges, 1)


def random_pose(scene: Scene, rng) -> tuple[float, float, float]:
    """Draw a pose (x, y, yaw) that roughly faces one of the objects, from near or far."""
    thing = scene.objects[rng.integers(len(scene.objects))]
    yaw = scene.start[2] + rng.normal(0, 0.06)
    ahead = 0.35 + thing.radius + 2.6 * rng.uniform() ** 1.3
    aside = rng.normal(0, 0.3) * (0.4 + 0.5 * ahead)
    return (
        thing.x - math.cos(yaw) * ahead + math.sin(yaw) * aside,
        thing.y - math.sin(yaw) * ahead - math.cos(yaw) * aside,
        yaw,
    )


def visible_objects(ids: np.ndarray) -> list[tuple[int, list[float]]]:
    """Return the objects in an (H, W) map of indices from left to right, each with its box."""
    seen = []
    height, width = ids.shape
    for index in np.unique(ids[ids >= 0]):
        rows, columns = np.nonzero(ids == index)
        if len(rows) < MIN_PIXELS * ids.size / (SIZE * SIZE):
            continue
        left, right = columns.min() / width, (columns.max() + 1) / width
        top, bottom = rows.min() / height, (rows.max() + 1) / height
        seen.append((int(index), [left, top, right, bottom]))
    return sorted(seen, key=lambda item: item[1][0] + item[1][2])


def augment(data: dict[str, np.ndarray], batch: np.ndarray, rng) -> tuple[np.ndarray, ...]:
    """
    Return images, names, boxes and cells of a batch under varied light, half of them mirrored.

    :param batch: (N,) indices into the data.
    """
    images, names, boxes, cells = (
        data[key][batch].copy() for key in ('images', 'names', 'boxes', 'cells')
    )
    for i in np.nonzero(rng.uniform(size=len(batch)) < 0.5)[0]:
        count = int((names[i] >= 0).sum())
        images[i] = images[i, :, ::-1]
        names[i, :count] = names[i, :count][::-1]
        left, top, right, bottom = boxes[i, :count][::-1].T
        boxes[i, :count] = np.stack([1 - right, top, 1 - left, bottom], axis=1)
        cells[i] = np.where(cells[i] >= 0, count - 1 - cells[i], -1)[:, ::-1]
    gain = rng.uniform(0.9, 1.1, (len(batch), 1, 1, 1)).astype(np.float32)
    return np.minimum(images * gain, 255).astype(np.uint8), names, boxes, cells
