"""The operator's overlay: the state's colour, the command, and the reason for a stop."""

import numpy as np
import pytest

from mobile_vla_ros.runtime.overlay import (
    BAR_HEIGHT,
    IMAGE_HEIGHT,
    NO_GUARD,
    PREDICTED,
    STATE_COLOURS,
    WIDTH,
    OverlayState,
    draw_drive,
)
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.safety.status import State


def view(**changed) -> OverlayState:
    twists = np.zeros((10, 6))
    twists[:, 0] = 0.5
    known = {
        'state': 'driving',
        'reason': '',
        'instruction': 'go to the red box',
        'plan': Plan(0, twists, 10.0),
        'command': twists[0],
        'max_velocity': (1.0, 1.0, 1.0),
        'age_s': 0.1,
        'camera_hz': 10.0,
        'now_ns': 0,
    }
    return OverlayState(**{**known, **changed})


def count(image, colour) -> int:
    return int((image == np.array(colour)).all(-1).sum())


@pytest.mark.parametrize('size', [(720, 1280), (224, 224), (480, 640), (1, 1), (2000, 30)])
def test_an_image_of_any_size_is_drawn(size):
    """The overlay has the same size for every camera, and its bar stays readable."""
    drawn = draw_drive(np.full((*size, 3), 90, np.uint8), view())
    assert drawn.shape == (IMAGE_HEIGHT + BAR_HEIGHT, WIDTH, 3)
    assert drawn.dtype == np.uint8


def test_every_state_of_the_guard_has_its_colour():
    """A new state must not be drawn as unknown."""
    assert set(STATE_COLOURS) == {str(state) for state in State}
    for state, colour in STATE_COLOURS.items():
        assert count(draw_drive(None, view(state=state)), colour) > 30_000


def test_without_a_guard_the_bar_is_red_like_a_fault():
    """Without a guard nothing could stop the base."""
    assert count(draw_drive(None, view(state=NO_GUARD)), STATE_COLOURS['fault']) > 30_000


def test_the_arrow_shows_the_command():
    """A dot at rest, a long arrow at full speed; the plan is drawn in the map only."""
    image = np.full((480, 640, 3), 90, np.uint8)
    still = count(draw_drive(image, view(plan=None, command=np.zeros(6))), PREDICTED)
    fast = count(
        draw_drive(image, view(plan=None, command=np.array([1.0, 0, 0, 0, 0, 0]))), PREDICTED
    )
    assert 0 < still < fast / 5


def test_the_map_shows_which_part_of_the_plan_is_past():
    """Half a second into a plan of one second, half of the path is grey."""
    fresh, half = (
        count(draw_drive(None, view(now_ns=now)), PREDICTED) for now in (0, 500_000_000)
    )
    assert 0.3 * fresh < half < 0.8 * fresh


@pytest.mark.parametrize('text', ['x' * 400, 'Ω ü 箱', '', 'a\nb', 'go ' * 333_333])
def test_any_text_can_be_drawn(text):
    """Regression: a text of one megabyte needed minutes."""
    assert draw_drive(None, view(instruction=text, reason=text)).shape[1] == WIDTH


def test_a_long_or_backward_plan_stays_in_the_map():
    """The map is scaled to the path; points outside are clamped to its edge."""
    twists = np.zeros((10, 6))
    twists[:, 0], twists[:, 1] = -30.0, 500.0
    assert draw_drive(None, view(plan=Plan(0, twists, 10.0))).shape[1] == WIDTH
