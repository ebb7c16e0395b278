"""Velocity arrows drawn on a camera image."""

import math

import numpy as np
from PIL import Image, ImageDraw

FULL_LENGTH_SHARE = 0.4
PREDICTED = (255, 214, 10)
DRIVEN = (255, 255, 255)


def draw_arrows(image: np.ndarray, arrows: list[tuple[np.ndarray, tuple[int, int, int]]],
                full_speed_mps: float, text: str = '') -> np.ndarray:
    """
    Draw velocities as arrows from the foot of the image: up is forward, left is left.

    :param image: (height, width, 3) uint8, RGB.
    :param arrows: (6,) twist and colour of each, drawn in this order.
    :param full_speed_mps: planar speed whose arrow is 40 % of the image's height.
    :returns: a new image of the same shape.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    foot = np.array([width / 2, height * 0.95])
    unit = FULL_LENGTH_SHARE * height / max(full_speed_mps, 1e-6)
    stroke = max(2, height // 70)
    for twist, colour in arrows:
        arrow = np.array([-twist[1], -twist[0]]) * unit
        length = math.hypot(*arrow)
        if length < stroke:
            draw.ellipse([*(foot - stroke), *(foot + stroke)], fill=colour)
            continue
        tip = foot + arrow
        along = arrow / length
        across = np.array([-along[1], along[0]])
        barb = 3 * stroke
        draw.line([*foot, *(tip - along * barb * 0.8)], fill=colour, width=stroke)
        draw.polygon([tuple(tip), tuple(tip - along * barb + across * barb * 0.6),
                      tuple(tip - along * barb - across * barb * 0.6)], fill=colour)
    if text:
        bar = max(12, height // 14)
        draw.rectangle([0, 0, width, bar], fill=(0, 0, 0))
        draw.text((4, 1), text, fill=(255, 255, 255), font_size=bar * 0.75)
    return np.asarray(canvas)
