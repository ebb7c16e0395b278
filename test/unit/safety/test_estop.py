"""The e-stop on three subscriptions: no press or loss is missed, and no old release counts."""

import pytest

from mobile_vla_ros.safety.estop import KEPT_COPIES, EstopOrder, EstopWatch
from mobile_vla_ros.safety.preflight import BOOL, NO_NAME_YET, Endpoint

HOUR = 3600
RELIABLE, BEST_EFFORT, LATCHED = range(3)
BUTTON = Endpoint('button', '/', BOOL, (1, 2))
OTHER = Endpoint('other', '/', BOOL, (3, 4))


def state_after(*messages) -> bool:
    """Return whether the e-stop is pressed after messages (see ``EstopOrder.counts``)."""
    order, state = EstopOrder(), False
    for pressed, *rest in messages:
        if order.counts(pressed, *rest):
            state = pressed
    return state


@pytest.mark.parametrize('stamp', [0, 8, 12], ids=['unknown', 'set back', 'in time'])
def test_a_press_counts_whatever_the_clocks_say(stamp):
    """An hour late, as after a step of its sender's clock; and its release on the same way."""
    pressed = (False, RELIABLE, 10, 10), (True, RELIABLE, stamp, 11 - HOUR)
    assert state_after(*pressed)
    assert not state_after(*pressed, (False, RELIABLE, stamp and stamp + 1, 11 - 2 * HOUR))


def test_a_copy_on_another_subscription_changes_nothing():
    """Neither an old "not pressed" that seems new, nor a press that was released since."""
    old = (False, LATCHED, HOUR, 10), (True, RELIABLE, 5, 12 - HOUR)
    assert state_after(*old, (False, BEST_EFFORT, HOUR, 13))
    released = (True, RELIABLE, 5, 5), (False, RELIABLE, 6, 6)
    assert not state_after(*released, (True, BEST_EFFORT, 5, 7), (False, BEST_EFFORT, 6, 7))


def test_an_old_release_that_was_sent_again_releases_nothing():
    """It was lost on one subscription, and comes on the other after the next press."""
    held = (True, RELIABLE, 1, 1), (True, BEST_EFFORT, 1, 1), (True, BEST_EFFORT, 3, 3)
    late = *held, (False, RELIABLE, 2, 2)
    assert state_after(*late)
    assert not state_after(*late, (True, RELIABLE, 3, 3), (False, RELIABLE, 4, 4))


def test_a_release_counts_where_it_is_in_order():
    """A copy too: the press was lost where the release came first, and the clock was set back."""
    held = (True, RELIABLE, 9, 9), (False, BEST_EFFORT, 2, 2)
    assert state_after(*held)
    assert not state_after(*held, (False, RELIABLE, 2, 2))


def test_another_publisher_can_release():
    """The latched press came from a button that is gone: what is sent later counts."""
    assert not state_after((True, LATCHED, 1, 1), (False, RELIABLE, 2, 2))


def test_the_copies_are_bounded():
    """A flood is remembered for as long as its copies can wait."""
    order = EstopOrder()
    assert all(order.counts(False, 0, stamp, stamp) for stamp in range(1, 3 * KEPT_COPIES))
    assert len(order._seen) == KEPT_COPIES


def test_the_loss_counts_when_it_lasts():
    """One poll without it is discovery; two in a row are a loss, for as long as it lasts."""
    watch = EstopWatch()
    watch.rely_on([BUTTON], alone=True)
    polls = [[BUTTON], [], [BUTTON], [], [OTHER], [], [BUTTON]]
    assert [watch.lost(one) for one in polls] == ['', '', '', '', '/button', '/button', '']


def test_arming_relies_on_what_is_there_then():
    """With alone=False, as while it is armed, earlier ones count too."""
    watch = EstopWatch()
    watch.rely_on([BUTTON], alone=True)
    watch.rely_on([OTHER], alone=True)
    assert [watch.lost([OTHER]) for _ in range(3)] == [''] * 3
    watch.rely_on([BUTTON], alone=False)
    assert [watch.lost([]) for _ in range(2)] == ['', '/button and /other']


def test_a_name_that_is_known_later_is_no_loss():
    """Discovery knows an endpoint before the name of its node."""
    watch = EstopWatch()
    watch.rely_on([BUTTON._replace(node=NO_NAME_YET)], alone=True)
    assert [watch.lost([BUTTON]) for _ in range(3)] == [''] * 3
    assert [watch.lost([]) for _ in range(2)][-1] == '/button'
