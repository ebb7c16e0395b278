"""What augmentation changes, and what must change with it."""

import colorsys

import numpy as np
import pytest
import torch

from generators import seeded
from mobile_vla_ros.data.augment import (
    Augmentation,
    Change,
    mirror_actions,
    mirror_images,
    mirror_instruction,
)
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec

NOISE = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
ALL = Augmentation(mirror=True, light=0.3, colour=0.3, shift=0.2)


def test_a_mirrored_world_is_consistent():
    """Images, axes and words swap sides together, so that left and right are not confused."""
    spec = ActionSpec(('linear_x', 'linear_y', 'angular_z'), (1, 1, 1))
    actions = np.array([[0.1, 0.2, 0.3]], np.float32)
    np.testing.assert_array_equal(
        mirror_actions(actions, spec), np.array([[0.1, -0.2, -0.3]], np.float32)
    )
    image = np.zeros((1, 2, 4, 3), np.uint8)
    image[:, :, 0] = 255
    assert mirror_images(image)[0, :, 3].all()
    assert not mirror_images(image)[0, :, :3].any()
    assert mirror_instruction('Left of the leftmost box, right away') == (
        'Right of the rightmost box, left away'
    )
    assert mirror_instruction('go to the bright box') == 'go to the bright box'
    assert mirror_instruction('go_left, leftwards') == 'go_right, rightwards'
    assert mirror_instruction('turn clockwise, then counter-clockwise') == (
        'turn counterclockwise, then clockwise'
    )


def test_a_draw_depends_only_on_its_generator():
    """The same seed draws the same values; torch's global generator is not used."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (ALL.draw(seeded(seed)) for seed in (3, 3, 4))
    assert first == again != other
    sides = [ALL.draw_mirror(seeded(seed)) for seed in range(100)]
    assert sides == [ALL.draw_mirror(seeded(seed)) for seed in range(100)]
    assert 30 < sum(sides) < 70
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_cover_the_range_of_their_shares():
    """Each share bounds its change on both sides; hue has a tenth of the colour share."""
    generator = seeded(0)
    augmentation = Augmentation(light=0.4, colour=0.3, shift=0.2)
    drawn = np.array([list(vars(augmentation.draw(generator)).values()) for _ in range(400)])
    bounds = np.array([0.4, 0.4, 0.3, 0.03, 0.2, 0.2])
    assert (np.abs(drawn) <= bounds).all()
    assert (drawn.max(0) > 0.95 * bounds).all() and (drawn.min(0) < -0.95 * bounds).all()


def test_without_shares_nothing_changes():
    """Without shares a draw is the identity; with shares, the input is not modified."""
    assert not Augmentation(mirror=True).changes_images
    change = Augmentation(mirror=True).draw(seeded(0))
    assert np.array_equal(change.apply(NOISE), NOISE)
    kept = NOISE.copy()
    assert not np.array_equal(ALL.draw(seeded(0)).apply(NOISE), NOISE)
    assert np.array_equal(NOISE, kept)


def test_all_frames_of_a_piece_change_equally():
    """A repeated frame stays repeated: the motion between frames is preserved."""
    frames = np.stack([NOISE[0], NOISE[1], NOISE[0]])
    changed = ALL.draw(seeded(1)).apply(frames)
    assert np.array_equal(changed[0], changed[2])
    assert not np.array_equal(changed[0], changed[1])


@pytest.mark.parametrize(
    ('right', 'down'), [(0.25, 0), (-0.25, 0), (0, 0.1), (0, -0.45), (0.1, -0.2)]
)
def test_a_shift_moves_the_image_and_repeats_its_edge(right, down):
    """Every pixel is moved by that distance, and edge pixels repeat."""
    moved = Change(right=right, down=down).apply(NOISE)
    places = np.arange(20)
    rows = np.clip(places - round(down * 20), 0, 19)
    columns = np.clip(places - round(right * 20), 0, 19)
    assert np.array_equal(moved, NOISE[:, rows][:, :, columns])


def test_a_mirrored_shift_is_a_shift_to_the_other_side():
    """Shifting and mirroring commute, with the shift reversed."""
    change = Change(right=0.2, down=0.1)
    other = Change(right=-0.2, down=0.1)
    assert np.array_equal(mirror_images(change.apply(NOISE)), other.apply(mirror_images(NOISE)))


def test_colour_leaves_grey_unchanged():
    """For any saturation and hue a grey pixel keeps its three equal values."""
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    augmentation = Augmentation(colour=0.9)
    for seed in range(20):
        assert np.array_equal(augmentation.draw(seeded(seed)).apply(grey), grey)
    lit = Augmentation(light=0.5, colour=0.9).draw(seeded(3)).apply(grey)
    assert np.array_equal(lit[..., 0], lit[..., 1]) and np.array_equal(lit[..., 0], lit[..., 2])
    assert not np.array_equal(lit, grey)


def hue_and_saturation(pixel) -> tuple[float, float]:
    """Return the hue (share of a circle) and the distance from grey of an RGB pixel."""
    return colorsys.rgb_to_hsv(*(pixel / 255))[0], float(pixel.max()) - float(pixel.min())


def test_hue_turns_and_saturation_grows():
    """A third of the circle turns red into green; a saturation of -1 would give grey."""
    pixel = np.array([[[[150, 110, 100]]]], np.uint8)
    third = Change(hue=1 / 3).apply(pixel)[0, 0, 0]
    assert np.abs(third - np.array([100, 150, 110.0])).max() <= 1
    hue, spread = hue_and_saturation(pixel[0, 0, 0])
    for saturation in (-0.5, 0.5):
        changed = Change(saturation=saturation).apply(pixel)[0, 0, 0]
        found = hue_and_saturation(changed)
        assert found[0] == pytest.approx(hue, abs=0.01)
        assert found[1] == pytest.approx(spread * (1 + saturation), abs=1)
    small = hue_and_saturation(Change(hue=0.03).apply(pixel)[0, 0, 0])
    assert small[0] == pytest.approx(hue + 0.03, abs=0.015)


def test_light_is_rounded_and_clipped():
    """Brightness adds, contrast scales about the mean; no value wraps around."""
    image = np.array([[[[100] * 3, [200] * 3]]], np.uint8)
    assert Change(brightness=0.1).apply(image)[0, 0, :, 0].tolist() == [113, 213]
    assert Change(contrast=0.5).apply(image)[0, 0, :, 0].tolist() == [75, 225]
    assert Change(brightness=0.9).apply(image)[0, 0, :, 0].tolist() == [215, 255]
    assert Change(contrast=0.9, brightness=-0.9).apply(image)[0, 0, :, 0].tolist() == [0, 130]


def test_all_shares_out_of_range_are_listed_together():
    """In one error; NaN is refused too."""
    with pytest.raises(
        UserError,
        match=r'light is 1\.0, not from 0 to 0\.9.*shift is -0\.1, not '
        r'from 0 to 0\.45',
    ):
        Augmentation(light=1.0, shift=-0.1)
    for name, most in (('light', 0.9), ('colour', 0.9), ('shift', 0.45)):
        Augmentation(**{name: most})
        for wrong in (most + 0.01, float('nan')):
            with pytest.raises(UserError, match=name):
                Augmentation(**{name: wrong})
