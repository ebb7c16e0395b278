"""
Video of LeRobot sets, by PyAV; the only module that opens a video.

The files to read are strangers': whoever reads them does so in another process with limits
(``episode.catalog.file_worker``).
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import av
import numpy as np

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.stored import check_size

PIXELS = 'yuv420p'
KEY_FRAMES = '2'  # every second frame, as LeRobot has it: training reads frames at random
# Encoder and its options, by the name that people know.
CODECS = {
    'h264': ('libx264', {'crf': '23', 'preset': 'veryfast'}),
    'av1': ('libsvtav1', {'crf': '30', 'preset': '12'}),
}


def about(codec: str) -> dict[str, Any]:
    """Return what a feature says of its video, by the name of a codec in ``CODECS``."""
    return {'codec': codec, 'pix_fmt': PIXELS}


class VideoWriter:
    """
    Writes frames into an MP4 file, frame i at i / fps.

    :param file: open for writing, able to seek.
    :param codec: one of ``CODECS``.
    :param size: width and height, both even.
    :raises UserError: when PyAV has no such encoder.
    """

    def __init__(self, file: IO[bytes], codec: str, size: tuple[int, int], fps: int) -> None:
        encoder, options = CODECS[codec]
        # PyAV wants a name of text, which a file opened by its number has not.
        plain = SimpleNamespace(write=file.write, seek=file.seek, tell=file.tell, name='')
        self._container = av.open(plain, 'w', format='mp4')
        try:
            options = {'g': KEY_FRAMES, **options}
            stream: Any = self._container.add_stream(encoder, rate=fps, options=options)
        except (ValueError, av.error.FFmpegError) as error:
            raise UserError(
                f'this PyAV cannot encode {codec}', got=first_line(error), remedy='pip install av'
            ) from None
        stream.width, stream.height = size
        stream.pix_fmt, stream.time_base = PIXELS, Fraction(1, fps)
        self._stream, self._period, self._count = stream, Fraction(1, fps), 0

    def add(self, rgb: np.ndarray) -> None:
        """Append an image: (height, width, 3) uint8."""
        frame = av.VideoFrame.from_ndarray(rgb, 'rgb24')
        frame.pts, frame.time_base = self._count, self._period
        self._count += 1
        self._encode(frame)

    def close(self) -> None:
        """Write what is left, and the index."""
        try:
            self._encode(None)
        finally:
            self._container.close()

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:  # some encoders take no small images
            raise UserError('the video cannot be encoded', got=first_line(error)) from None


def at(path: Path, times_s: np.ndarray, tolerance_s: float) -> Iterator[np.ndarray]:
    """
    Yield the frames of a video that are the nearest to some times.

    :param times_s: (N,) increasing, N > 0.
    :returns: (height, width, 3) uint8 BGR each.
    :raises UserError: when the video is missing or broken, or has no frame near a time.
    """
    if not path.is_file():
        raise UserError(f'the video {path.name} is missing', got=f'no {path}')
    try:
        with av.open(str(path), format='mp4') as container:
            stream = container.streams.video[0]
            # Instead of guessing what is missing.
            stream.codec_context.options = {'err_detect': 'explode'}
            base, start = stream.time_base, stream.start_time or 0
            assert base is not None, 'a stream of MP4 has one'
            first = start + int((times_s[0] - tolerance_s) / base)
            container.seek(max(first, start), stream=stream, backward=True)
            frames = (
                (float(((frame.pts or 0) - start) * base), frame)
                for frame in container.decode(stream)
            )
            found, later = next(frames, None), next(frames, None)
            for time_s in times_s.tolist():
                while found and later and abs(later[0] - time_s) < abs(found[0] - time_s):
                    found, later = later, next(frames, None)
                if found is None or abs(found[0] - time_s) > tolerance_s:
                    raise UserError(
                        f'the video {path.name} lacks frames', got=f'none at {time_s:.3f} s'
                    )
                if found[1].is_corrupt:
                    raise ValueError(f'the frame at {time_s:.3f} s is damaged')
                check_size(found[1].width, found[1].height)
                yield found[1].to_ndarray(format='bgr24')
    except (av.error.FFmpegError, IndexError, TypeError, ValueError) as error:
        raise UserError(f'the video {path.name} cannot be read', got=first_line(error)) from None
