"""The operator's overlay: velocities as arrows on the camera image, and the state below it."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mobile_vla_ros.runtime.playback import Plan, path_of
from mobile_vla_ros.types import NANOSECONDS

FULL_LENGTH_SHARE = 0.4
PREDICTED = (255, 214, 10)
DRIVEN = (255, 255, 255)
BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (150, 150, 150)
GREEN, AMBER, RED, BLUE = (22, 120, 52), (176, 102, 0), (190, 24, 30), (30, 84, 160)
STATE_COLOURS = {
    'driving': GREEN,
    'teleop': BLUE,
    'waiting': AMBER,
    'disarmed': (80, 80, 80),
    'fault': RED,
    'estop': RED,
}
NO_GUARD = 'no guard'  # no recent status

# Sizes in pixels.
WIDTH, IMAGE_HEIGHT, BAR_HEIGHT = 640, 480, 132
MAP_SIDE, MAP_MIN_M = 132, 0.5
MAX_LINE_CHARS = 200  # more than fit

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class OverlayState:
    """
    What the overlay shows at one instant.

    :param state: value of the guard's ``State``, or ``NO_GUARD``.
    :param reason: why the command is zero, from the guard or the policy.
    :param plan: the newest plan, None while there is none.
    :param command: (6,) published to the base, m/s and rad/s.
    :param max_velocity: limits of x, y (m/s) and theta (rad/s); 0.0 for an axis the base lacks.
    :param age_s: of the newest image, None before the first.
    :param camera_hz: images per second.
    :param now_ns: on the clock of the plan's stamp.
    :param age_limit_s: maximum age of an image.
    :param source: of the command: policy, teleop, takeover, none.
    """

    state: str
    reason: str
    instruction: str
    plan: Plan | None
    command: np.ndarray
    max_velocity: tuple[float, float, float]
    age_s: float | None
    camera_hz: float
    now_ns: int
    age_limit_s: float = 0.3
    source: str = ''
    dry_run: bool = False


def draw_drive(image: np.ndarray | None, shown: OverlayState) -> np.ndarray:
    """
    Draw the newest image, and below it the state and the command, readable from two metres.

    The arrow is the command (full length: the fastest axis at its limit); the map in the corner
    shows the planned path from above, starting at the robot, on a grid of half a metre.

    :param image: (height, width, 3) uint8, RGB, of any size; None before the first.
    :returns: (612, 640, 3) uint8, RGB.
    """
    canvas = Image.new('RGB', (WIDTH, IMAGE_HEIGHT + BAR_HEIGHT))
    draw = ImageDraw.Draw(canvas)
    if image is None:
        _text(draw, (WIDTH / 2, IMAGE_HEIGHT / 2), 'no image yet', 40, GREY, 'mm')
    else:
        height, width = image.shape[:2]
        scale = min(WIDTH / width, IMAGE_HEIGHT / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        drawn = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        drawn = draw_arrows(
            drawn, [(shown.command, PREDICTED)], max(*shown.max_velocity[:2], 1e-3)
        )
        canvas.paste(
            Image.fromarray(drawn), ((WIDTH - size[0]) // 2, (IMAGE_HEIGHT - size[1]) // 2)
        )
    if shown.plan is not None:
        _map(draw, shown.plan, shown.now_ns)
    _title(draw, shown.instruction)
    _bar(draw, shown)
    return np.asarray(canvas)


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: float,
    colour: Colour,
    anchor: str = 'la',
    width: float | None = None,
) -> None:
    """Draw a line of text, shrunk and then cut to fit a width."""
    text = ' '.join(text[:MAX_LINE_CHARS].split())
    if width is not None:
        while size > 14 and draw.textlength(text, font_size=size) > width:
            size -= 1
        while draw.textlength(text, font_size=size) > width and len(text) > 4:
            text = text[:-4].rstrip() + '…'
    draw.text(at, text, fill=colour, anchor=anchor, font_size=size)


def _title(draw: ImageDraw.ImageDraw, instruction: str) -> None:
    draw.rectangle([0, 0, WIDTH, 40], fill=BLACK)
    _text(
        draw,
        (10, 20),
        instruction or 'no instruction',
        28,
        WHITE if instruction else AMBER,
        'lm',
        WIDTH - 20,
    )


def _map(draw: ImageDraw.ImageDraw, plan: Plan, now_ns: int) -> None:
    """Draw the path from above: up is forward; the part in the past is grey."""
    left, top = WIDTH - MAP_SIDE - 6, 46
    draw.rectangle([left, top, left + MAP_SIDE, top + MAP_SIDE], fill=BLACK, outline=GREY)
    poses = path_of(plan)
    reach = max(MAP_MIN_M, 2.2 * float(np.abs(poses[:, 1]).max()), 1.2 * float(poses[:, 0].max()))
    unit = (MAP_SIDE - 16) / reach
    foot = left + MAP_SIDE / 2, top + MAP_SIDE - 10
    lines = np.arange(0.0, reach + 1e-6, 0.5)
    for metres in lines if len(lines) < 20 else ():
        y = foot[1] - metres * unit
        draw.line([left + 1, y, left + MAP_SIDE - 1, y], fill=(60, 60, 60))
        for x in {foot[0] - metres * unit, foot[0] + metres * unit}:
            if left < x < left + MAP_SIDE:
                draw.line([x, top + 1, x, top + MAP_SIDE - 1], fill=(60, 60, 60))
    points = [(foot[0] - y * unit, foot[1] - x * unit) for x, y, _ in poses]
    points = [
        (min(max(x, left + 2), left + MAP_SIDE - 2), min(max(y, top + 2), top + MAP_SIDE - 2))
        for x, y in points
    ]
    draw.line(points, fill=PREDICTED, width=4, joint='curve')
    done = int(max(0.0, (now_ns - plan.stamp_ns) * plan.rate_hz / NANOSECONDS))
    if done:
        draw.line(points[: done + 1], fill=GREY, width=4, joint='curve')
    x, y = points[-1]
    draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=PREDICTED)
    draw.polygon(
        [(foot[0], foot[1] - 8), (foot[0] - 6, foot[1] + 6), (foot[0] + 6, foot[1] + 6)],
        fill=WHITE,
    )


def _bar(draw: ImageDraw.ImageDraw, shown: OverlayState) -> None:
    """Draw the state in large letters, the command with its limits, and the age of the image."""
    top = IMAGE_HEIGHT
    colour = STATE_COLOURS.get(shown.state, RED)
    draw.rectangle([0, top, WIDTH, top + BAR_HEIGHT], fill=colour)
    word = 'DRY RUN' if shown.dry_run and shown.state == 'driving' else shown.state.upper()
    _text(draw, (12, top + 34), word, 50, WHITE, 'lm', 330)
    speed = float(np.hypot(shown.command[0], shown.command[1]))
    _text(draw, (WIDTH - 12, top + 34), f'{speed:.2f} m/s', 50, WHITE, 'rm', 280)
    if shown.reason:
        line = shown.reason
    else:
        x, y, theta = (shown.command[k] for k in (0, 1, 5))
        parts = [
            (name, value, limit, unit)
            for name, value, limit, unit in zip(
                ('ahead', 'left', 'turn'),
                (x, y, theta),
                shown.max_velocity,
                ('m/s', 'm/s', 'rad/s'),
                strict=True,
            )
            if limit > 0
        ]
        line = ' · '.join(
            f'{name} {value:+.2f} of {limit:g} {unit}' for name, value, limit, unit in parts
        )
    _text(draw, (12, top + 82), line, 24, WHITE, 'lm', WIDTH - 24)
    old = shown.age_s is not None and shown.age_s > shown.age_limit_s
    age = 'no image' if shown.age_s is None else f'image {min(shown.age_s, 999.0):.2f} s old'
    facts = [
        f'{age} (limit {shown.age_limit_s:g})' if old else age,
        f'{shown.camera_hz:.0f} Hz',
        *([f'by {shown.source}'] if shown.source not in ('', 'none') else []),
    ]
    _text(draw, (12, top + 114), ' · '.join(facts), 22, WHITE, 'lm', WIDTH - 24)


def draw_arrows(
    image: np.ndarray,
    arrows: list[tuple[np.ndarray, Colour]],
    full_speed_mps: float,
) -> np.ndarray:
    """
    Draw velocities as arrows from the bottom centre of the image: up is forward, left is left.

    :param image: (height, width, 3) uint8, RGB.
    :param arrows: (6,) twist and colour of each, drawn in this order.
    :param full_speed_mps: planar speed of an arrow of 40 % of the image's height.
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
        draw.polygon(
            [
                tuple(tip),
                tuple(tip - along * barb + across * barb * 0.6),
                tuple(tip - along * barb - across * barb * 0.6),
            ],
            fill=colour,
        )
    return np.asarray(canvas)
