"""Image tokens of takes, for training that leaves the vision part as it is: computed once."""

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
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.files import replaced
from mobile_vla_ros.types import ImageSpec

BATCH = 64
# Light, colour and shift are drawn so many times for each run, and not anew at every use.
DRAWS = 2
# Counts the ways from a stored image to the numbers: another way, another folder.
# 2: large JPEGs decoded at a reduced scale; light mixed with colour, rounded and not cut.
WAY = 2


class ImageTokens:
    """
    The image tokens of each frame in every variant that an augmentation may ask for.

    One file a run of frames, named by its take's content, below a folder named by everything else
    that the numbers depend on: another backbone, image size or augmentation never meets them. A
    file that is torn or not ours is computed again. A run with a frame that cannot be read has no
    tokens; `frames` says why.

    :param encode: (N, 3, S, S) images to (N, K, D) tokens; called where a file is missing.
    :param weights: names the weights behind `encode` and what they compute in.
    :param folder: where the files are kept.
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
        key = json.dumps([WAY, weights, asdict(image), asdict(augmentation), DRAWS])
        self.folder = Path(folder) / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.kept: dict[tuple[str, int], Path] = {}
        self.broken: dict[tuple[str, int], str] = {}
        self._blank: torch.Tensor | None = None
        self._lock = threading.Lock()

    @property
    def variants(self) -> list[tuple[bool, int]]:
        """What a frame is seen as: (mirrored, number of the draw; 0: as it came)."""
        draws = range(DRAWS + 1) if self.augmentation.changes_images else range(1)
        mirrors = (False, True) if self.augmentation.mirror else (False,)
        return [(mirrored, draw) for mirrored in mirrors for draw in draws]

    def draw(self, generator: torch.Generator) -> int:
        """Draw the number of a variant."""
        if not self.augmentation.changes_images:
            return 0
        return int(torch.randint(DRAWS + 1, (), generator=generator))

    def prepare(self, runs: Sequence[Run]) -> None:
        """
        Compute what is missing for some runs of frames; one that is broken stops no other.

        :raises UserError: when the folder cannot be written to.
        """
        sums: dict[Path, str] = {}
        cache = FrameCache(self.image, budget_bytes=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for run in tqdm(runs, desc='image tokens', unit='run', leave=False):
                try:
                    self.kept[_key(run)] = self._prepared(run, sums, cache)
                except UserError as error:
                    self.broken[_key(run)] = str(error)
        except OSError as error:
            raise UserError(
                f'image tokens cannot be kept in {self.folder}',
                got=first_line(error),
                expected='a folder with room for them',
                remedy='make room, or give another --token_cache',
            ) from None

    def frames(self, run: Run, rows: slice, mirrored: bool, draw: int) -> torch.Tensor:
        """
        Return (T, K, D) float32 tokens of some rows of a run, whose frames may be in any order.

        :param mirrored: and ``draw``: one of ``variants``.
        :raises UserError: when a frame of the run cannot be read, or its file of tokens is gone.
        """
        key = _key(run)
        if key in self.broken:
            raise UserError(self.broken[key].rstrip('.'))
        # Opened anew each time: a map of every take would keep a file open for each.
        tokens = self._load(self.kept[key], run)
        if tokens is None:
            raise UserError(
                f'the image tokens of {run.path} are broken or gone',
                got=self.kept[key],
                remedy='start again: they are computed anew',
            )
        variant = self.variants.index((mirrored, draw))
        place = np.argsort(np.argsort(run.frames))  # they are kept in the order of the rows
        return torch.from_numpy(tokens[variant][place[rows]].astype(np.float32))

    @torch.no_grad()
    def blank(self, count: int) -> torch.Tensor:
        """Return (count, K, D) tokens of an image that is the mean colour all over."""
        with self._lock:
            if self._blank is None:
                side = self.image.size
                self._blank = self.encode(torch.zeros(1, 3, side, side)).float().cpu()
        return self._blank.expand(count, -1, -1)

    def _load(self, path: Path, run: Run) -> np.ndarray | None:
        """Return (variants, T, K, D) float16 of a file, None when it is torn or another's."""
        try:
            tokens = np.load(path, mmap_mode='r')
        except (OSError, ValueError, EOFError):
            return None
        shape = (len(self.variants), len(run.frames), *self.blank(1).shape[1:])
        ours = isinstance(tokens, np.ndarray) and tokens.dtype == np.float16
        return tokens if ours and tokens.shape == shape else None

    def _prepared(self, run: Run, sums: dict[Path, str], cache: FrameCache) -> Path:
        """Return the file of a run's tokens, written now where it is missing."""
        run = replace(run, frames=np.sort(run.frames))
        if run.path not in sums:
            sums[run.path] = _content(run.path)
        rows = hashlib.sha256(np.ascontiguousarray(run.frames, '<i8')).hexdigest()[:8]
        path = self.folder / f'{sums[run.path]}_{rows}.npy'
        if self._load(path, run) is None:
            tokens = self._compute(cache, run, path.stem)
            with replaced(path, 'wb') as file:
                np.save(file, tokens)
        return path

    @torch.no_grad()
    def _compute(self, cache: FrameCache, run: Run, name: str) -> np.ndarray:
        """Return (variants, T, K, D) float16; the same for a run whenever it is computed."""
        images = cache.frames(run, slice(0, len(run.frames)))
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'big')
        generator = torch.Generator().manual_seed(seed)
        changes = [Change(), *(self.augmentation.draw(generator) for _ in range(DRAWS))]
        tokens = []
        for mirrored, draw in self.variants:
            shown = changes[draw].apply(images)
            shown = normalise(mirror_images(shown) if mirrored else shown, self.image)
            tokens.append(torch.cat([self.encode(part) for part in shown.split(BATCH)]))
        return torch.stack(tokens).half().cpu().numpy()


def _key(run: Run) -> tuple[str, int]:
    return str(run.path), int(run.frames.min())


def _content(path: Path) -> str:
    """Return a hash of a take's bytes."""
    try:
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()[:24]
    except OSError as error:
        raise UserError(
            f'{path} cannot be read', got=first_line(error), expected='a take'
        ) from None
