"""Image tokens of takes, for training that leaves the vision part as it is: computed once."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mobile_vla_ros.data.augment import Augmentation, mirror_images
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.files import replaced
from mobile_vla_ros.types import ImageSpec

BATCH = 64
# Light is drawn so many times for each run of frames, and not anew at every use.
LIGHTS = 2


class ImageTokens:
    """
    The image tokens of each frame in every variant that an augmentation may ask for.

    One file a run of frames, named by its take's content, below a folder named by everything else
    that the numbers depend on: another backbone, image size or augmentation never meets them.

    :param encode: (N, 3, S, S) images to (N, K, D) tokens; called where a file is missing.
    :param weights: hash of the weights behind `encode`.
    :param folder: where the files are kept.
    """

    def __init__(self, encode: Callable[[torch.Tensor], torch.Tensor], weights: str,
                 image: ImageSpec, augmentation: Augmentation, folder: Path):
        self.encode = encode
        self.image = image
        self.augmentation = augmentation
        key = json.dumps([weights, asdict(image), asdict(augmentation), LIGHTS])
        self.folder = Path(folder) / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.kept: dict[tuple[str, int], np.ndarray] = {}
        self._blank: torch.Tensor | None = None

    @property
    def variants(self) -> list[tuple[bool, int]]:
        """What a frame is seen as: (mirrored, number of the draw of light; 0: as it came)."""
        lights = range(LIGHTS + 1) if self.augmentation.light else range(1)
        mirrors = (False, True) if self.augmentation.mirror else (False,)
        return [(mirrored, light) for mirrored in mirrors for light in lights]

    def prepare(self, runs: Sequence[Run]) -> None:
        """Compute what is missing for some runs of frames."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sums: dict[Path, str] = {}
        cache = FrameCache(self.image, budget_bytes=0)
        for run in tqdm(runs, desc='image tokens', unit='run', leave=False):
            if run.path not in sums:
                with run.path.open('rb') as file:
                    sums[run.path] = hashlib.file_digest(file, 'sha256').hexdigest()[:24]
            first = int(run.frames[0])
            rows = hashlib.sha256(np.ascontiguousarray(run.frames, '<i8')).hexdigest()[:8]
            path = self.folder / f'{sums[run.path]}_{rows}.npy'
            if not path.exists():
                tokens = self._compute(cache, run)
                with replaced(path, 'wb') as file:
                    np.save(file, tokens)
            self.kept[str(run.path), first] = np.load(path, mmap_mode='r')

    def frames(self, run: Run, rows: slice, mirrored: bool,
               augmentation: Augmentation) -> torch.Tensor:
        """
        Return (T, K, D) float32 tokens of some rows of a run.

        :param augmentation: as drawn from now: without light, the frames as they came.
        """
        light = int(torch.randint(LIGHTS + 1, ())) if augmentation.light else 0
        variant = self.variants.index((mirrored, light))
        tokens = self.kept[str(run.path), int(run.frames[0])]
        return torch.from_numpy(tokens[variant, rows].astype(np.float32))

    @torch.no_grad()
    def blank(self, count: int) -> torch.Tensor:
        """Return (count, K, D) tokens of an image that is the mean colour all over."""
        if self._blank is None:
            side = self.image.size
            self._blank = self.encode(torch.zeros(1, 3, side, side)).float().cpu()
        return self._blank.expand(count, -1, -1)

    @torch.no_grad()
    def _compute(self, cache: FrameCache, run: Run) -> np.ndarray:
        """Return (variants, T, K, D) float16."""
        images = cache.frames(run, slice(0, len(run.frames)))
        with torch.random.fork_rng():
            torch.manual_seed(len(images))  # whether the file was there changes nothing after it
            lit = [images, *(self.augmentation.change_light(images) for _ in range(LIGHTS))]
        tokens = []
        for mirrored, light in self.variants:
            shown = mirror_images(lit[light]) if mirrored else lit[light]
            tokens.append(torch.cat([self.encode(part) for part in
                                     normalise(shown, self.image).split(BATCH)]))
        return torch.stack(tokens).half().cpu().numpy()
