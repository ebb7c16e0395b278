"""
The cameras of an episode beside its main one: topics of compressed images, kept as they arrived.

A camera's name is its topic without ``/compressed``.
"""

import struct
from collections.abc import Iterable, Sequence
from types import SimpleNamespace

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.errors import UserError, did_you_mean, first_line
from mobile_vla_ros.images.compressed import stored_compressed

TYPE = 'sensor_msgs/msg/CompressedImage'
COMPRESSED = '/compressed'
DEPTH = '/compressedDepth'  # of that type, and no image to look at


class NoSuchCamera(UserError):
    """An episode that can be read lacks the camera that is wanted of it."""


class CameraImages:
    """
    The images of a camera; ``images[i]`` reads the JPEG or PNG bytes of one.

    :param messages: of its topic (CDR).
    """

    def __init__(self, messages: Sequence[bytes]) -> None:
        self._messages = messages

    def __getitem__(self, row: int) -> bytes:
        """Return the bytes of one image; raise ValueError for another message."""
        try:
            message = _message(self._messages[row])
        except struct.error as error:
            raise ValueError(f'no {TYPE}: {first_line(error)}') from None
        try:
            return stored_compressed(message)
        except UserError:  # a broken image is for whoever decodes it
            return bytes(message.data)


def image_of(data: bytes) -> bytes:
    """Return the JPEG or PNG bytes of a CompressedImage (CDR), b'' of another message."""
    try:
        return bytes(_message(data).data)
    except struct.error:
        return b''


def camera_name(topic: str) -> str:
    """Return the name of the camera that publishes a topic."""
    return topic.removesuffix(COMPRESSED)


def further_cameras(channels: Iterable[Channel]) -> dict[str, str]:
    """Return the topics of the cameras among some channels, by name."""
    topics = [one.topic for one in channels if one.type == TYPE and not one.topic.endswith(DEPTH)]
    return {camera_name(topic): topic for topic in topics}


def chosen_camera(given: str, names: Sequence[str], where: object) -> str:
    """
    Return the name that a person means.

    :param given: a whole name or topic, or a part that only one of the names has.
    :param where: what has these cameras, for the message.
    :raises NoSuchCamera: when no name has this part, or several have.
    """
    wanted = camera_name(given)
    parts = [part for name in names for part in name.split('/') if part]
    for fits in (
        [name for name in names if name == wanted],
        [name for name in names if wanted in name.split('/')],
        [name for name in names if wanted in name],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            break
    remedy = did_you_mean(wanted, [part for part in parts if part not in wanted.split('/')])
    if '' in names and remedy is None:  # it may be the one that is meant
        remedy = 'the one without a name is the main one: no name gives it'
    remedy = remedy or 'record it with extra_cameras of the recorder'
    raise NoSuchCamera(
        f'{where} has {"several cameras" if fits else "no camera"} {given!r}',
        got=', '.join(one or 'one without a name' for one in fits or names),
        remedy='give more of the name' if fits else remedy,
    )


def _message(data: bytes) -> SimpleNamespace:
    """Return format and image of a CompressedImage (CDR of either byte order)."""
    if len(data) < 4 or data[0] != 0 or data[1] > 1:
        raise struct.error('other bytes than plain CDR')
    order, body, at = '><'[data[1]], data[4:], 8  # after the header's stamp
    found = []
    for _ in range(3):  # frame_id, format, data
        at += -at % 4
        (size,) = struct.unpack_from(f'{order}I', body, at)
        at += 4 + size
        if at > len(body):
            raise struct.error('cut short')
        found.append(body[at - size : at])
    return SimpleNamespace(format=found[1].rstrip(b'\0').decode(errors='replace'), data=found[2])
