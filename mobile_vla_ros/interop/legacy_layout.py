"""Write files in the layout of the reference run: gzip, raw pixels, a row a key press."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np


def write_legacy_layout(
    path: Path | str,
    images: Sequence[np.ndarray],
    actions: np.ndarray,
    instruction: str = '',
    **attributes: str | int | float,
) -> None:
    """
    Write a new file as the recorder of the reference run did; for tests and comparisons.

    :param images: T of (height, width, 3) uint8, BGR.
    :param actions: (T, 3) float32: linear_x, linear_y (at most 1.15), angular_z.
    :param instruction: left out if empty.
    :param attributes: further attributes of the file.
    :raises FileExistsError: when the file exists; nothing is overwritten.
    """
    moving = np.any(actions, axis=1)
    types = [
        'episode_start',
        *('start_action' if moves else 'stop_action' for moves in moving[1:]),
    ]
    with h5py.File(path, 'x') as file:
        file.create_dataset('images', data=np.stack(images), compression='gzip')
        file.create_dataset('actions', data=actions.astype(np.float32), compression='gzip')
        file.create_dataset(
            'action_event_types', data=types, dtype=h5py.string_dtype(), compression='gzip'
        )
        if instruction:
            file.create_dataset(
                'language_instruction', data=[instruction], dtype=h5py.string_dtype()
            )
        file.attrs.update(
            {'episode_name': Path(path).stem, 'num_frames': len(images), **attributes}
        )
