"""Encoded images that are as busy as photographs."""

import io

from PIL import Image

from mobile_vla_ros.bench import synthetic_camera


def busy_images(width: int, height: int, kind: str = 'JPEG', count: int = 1) -> list[bytes]:
    """Return encoded images of that size; no two are alike."""
    encoded = []
    for pixels in synthetic_camera.images(width, height, count):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, quality=90)
        encoded.append(buffer.getvalue())
    return encoded
