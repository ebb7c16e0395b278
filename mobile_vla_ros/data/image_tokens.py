"""Compute image tokens once, for training that leaves the vision tower unchanged."""

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mobile_vla_ros.data.augment import Augmentation, Change, mirror_images
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.files import replaced, sha256
from mobile_vla_ros.types import ImageSpec

BATCH = 64
# Light, colour and shift are drawn this many times for each segment, not anew at every use.
DRAWS = 2
# Version of the path from a stored image to the network's input; raise it with every change.
# 2: large JPEGs decoded at a reduced scale; light and colour in one step, rounded, not truncated.
# 3: tokens of a training that starts from a policy are computed without dropout.
PIPELINE_VERSION = 3


class ImageTokens:
    """
    Image tokens of each frame, in every variant that an augmentation may draw.

    There is one file a segment, named by a hash of its episode and camera, in a folder named by a
    hash of everything else that the tokens depend on: backbone, image size, augmentation. A torn
    or foreign file is computed again. A segment with an unreadable frame has no tokens; `frames`
    raises the reason.

    :param encode: maps (N, 3, S, S) images to (N, K, D) tokens; called if a file is missing.
    :param weights: identifies the weights behind `encode` and their dtype.
    :param folder: parent folder of the files.
    """

    def __init__(
        self,
        encode: Callable[[torch.Tensor], torch.Tensor],
        weights: str,
        image: ImageSpec,
        augmentation: Augmentation,
        folder: Path,
    ):
        self.encode = encode
        self.image = image
        self.augmentation = augmentation
        key = json.dumps([PIPELINE_VERSION, weights, asdict(image), asdict(augmentation), DRAWS])
        self.folder = Path(folder) / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.kept: dict[tuple[str, int], Path] = {}
        self.broken: dict[tuple[str, int], str] = {}
        self._blank: torch.Tensor | None = None
        self._lock = threading.Lock()

    @property
    def variants(self) -> list[tuple[bool, int]]:
        """All variants of a frame: (mirrored, number of the draw; 0: unchanged)."""
        draws = range(DRAWS + 1) if self.augmentation.changes_images else range(1)
        mirrors = (False, True) if self.augmentation.mirror else (False,)
        return [(mirrored, draw) for mirrored in mirrors for draw in draws]

    def draw(self, generator: torch.Generator) -> int:
        """Draw the number of a change; 0: unchanged."""
        if not self.augmentation.changes_images:
            return 0
        return int(torch.randint(DRAWS + 1, (), generator=generator))

    def prepare(self, segments: Sequence[Segment]) -> None:
        """
        Compute the missing tokens of some segments, skipping broken ones.

        :raises UserError: when the folder cannot be written.
        """
        sums: dict[Path, str] = {}
        cache = FrameCache(self.image, budget_bytes=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for segment in tqdm(segments, desc='image tokens', unit='segments', leave=False):
                try:
                    self.kept[_key(segment)] = self._prepared(segment, sums, cache)
                except UserError as error:
                    self.broken[_key(segment)] = str(error)
        except OSError as error:
            raise UserError(
                f'cannot store image tokens in {self.folder}',
                got=first_line(error),
                expected='a writable folder with enough space',
                remedy='free some space, or choose another --token_cache',
            ) from None

    def frames(
        self, segment: Segment, rows: np.ndarray, mirrored: bool, draw: int
    ) -> torch.Tensor:
        """
        Return (T, K, D) float32 tokens of some frames of a segment, which may be in any order.

        :param rows: (T,) their places in it.
        :param mirrored, draw: one of ``variants``.
        :raises UserError: when a frame of the segment is unreadable, or its token file is missing.
        """
        key = _key(segment)
        if key in self.broken:
            raise UserError(self.broken[key].rstrip('.'))
        # Reopened each time: maps of all segments would hold as many files open.
        tokens = self._load(self.kept[key], segment)
        if tokens is None:
            raise UserError(
                f'the image tokens of {segment.path} are broken or missing',
                got=self.kept[key],
                remedy='run the same command again: it computes them anew',
            )
        variant = self.variants.index((mirrored, draw))
        place = np.argsort(np.argsort(segment.frames))  # the file has them in the order of rows
        return torch.from_numpy(tokens[variant][place[rows]].astype(np.float32))

    @torch.no_grad()
    def blank(self, count: int) -> torch.Tensor:
        """Return (count, K, D) tokens of an image filled with the mean colour."""
        with self._lock:
            if self._blank is None:
                side = self.image.size
                self._blank = self.encode(torch.zeros(1, 3, side, side)).float().cpu()
        return self._blank.expand(count, -1, -1)

    def _load(self, path: Path, segment: Segment) -> np.ndarray | None:
        """Return (variants, T, K, D) float16 of a file, None if it is torn or foreign."""
        try:
            tokens = np.load(path, mmap_mode='r')
        except (OSError, ValueError, EOFError):
            return None
        shape = (len(self.variants), len(segment.frames), *self.blank(1).shape[1:])
        valid = isinstance(tokens, np.ndarray) and tokens.dtype == np.float16
        return tokens if valid and tokens.shape == shape else None

    def _prepared(self, segment: Segment, sums: dict[Path, str], cache: FrameCache) -> Path:
        """Return the file of a segment's tokens; write it if it is missing."""
        segment = replace(segment, frames=np.sort(segment.frames))
        if segment.path not in sums:
            sums[segment.path] = _hash_of(segment.path)
        own = segment.camera.encode() + segment.frames.astype('<i8').tobytes()
        rows = hashlib.sha256(own).hexdigest()[:8]
        path = self.folder / f'{sums[segment.path]}_{rows}.npy'
        if self._load(path, segment) is None:
            tokens = self._compute(cache, segment, path.stem)
            with replaced(path, 'wb') as file:
                np.save(file, tokens)
        return path

    @torch.no_grad()
    def _compute(self, cache: FrameCache, segment: Segment, name: str) -> np.ndarray:
        """Return (variants, T, K, D) float16; deterministic for a segment."""
        images = cache.frames(segment, np.arange(len(segment.frames)))
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'big')
        generator = torch.Generator().manual_seed(seed)
        changes = [Change(), *(self.augmentation.draw(generator) for _ in range(DRAWS))]
        tokens = []
        for mirrored, draw in self.variants:
            shown = changes[draw].apply(images)
            shown = normalise(mirror_images(shown) if mirrored else shown, self.image)
            tokens.append(torch.cat([self.encode(part) for part in shown.split(BATCH)]))
        stored: np.ndarray = torch.stack(tokens).half().cpu().numpy()
        return stored


def _key(segment: Segment) -> tuple[str, int]:
    return str(segment.path), int(segment.frames.min())


def _hash_of(path: Path) -> str:
    """Return a hash of an episode's bytes."""
    try:
        return sha256(path)[:24]
    except OSError as error:
        raise UserError(
            f'cannot read {path}', got=first_line(error), expected='an episode'
        ) from None
