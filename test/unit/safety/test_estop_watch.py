"""The loss of an e-stop that was there since arming."""

from mobile_vla_ros.safety.estop_watch import EstopWatch
from mobile_vla_ros.safety.preflight import BOOL, NO_NAME_YET, Endpoint

BUTTON = Endpoint('button', '/', BOOL, (1, 2))
OTHER = Endpoint('other', '/', BOOL, (3, 4))


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
