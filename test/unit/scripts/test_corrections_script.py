"""scripts/corrections.py: the statistics of its comparison."""

import pytest

import corrections


def test_the_same_scenes_are_compared():
    """Of 100 scenes 12 are won and 4 lost: 8 points ± 1.96 standard errors."""
    before = {number: number >= 12 for number in range(100)}
    after = {number: number < 96 for number in range(100)}
    rise, low, high = corrections.compare(before, after)
    assert rise == pytest.approx(0.08)
    assert (
        high - rise
        == pytest.approx(rise - low)
        == pytest.approx(1.96 * (16 - 64 / 100) ** 0.5 / 100)
    )


def test_more_than_twenty_drives_are_refused(capsys):
    """The documented result is for at most twenty."""
    assert corrections.main(['--drives', '21']) == 2
    assert '--drives 21; expected 1 to 20' in capsys.readouterr().err
