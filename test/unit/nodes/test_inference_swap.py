"""Loading the next policy beside the driving one."""

import threading

from mobile_vla_ros.nodes.inference.policies import Policies
from mobile_vla_ros.runtime.loading import ReadyPolicy
from ros_helpers import TIMEOUT_S, wait_until


def test_policies_are_loaded_one_at_a_time_and_only_into_free_memory():
    """Each needs as much memory as the driving policy, which a full machine would kill."""
    begun, let, logged, shortages = [], threading.Semaphore(0), threading.Semaphore(0), ['']

    def load(name):
        begun.append(name)
        assert let.acquire(timeout=TIMEOUT_S)
        return ReadyPolicy(name, None, True, 'well')

    policies = Policies(
        ReadyPolicy('current', None, True, ''),
        load=load,
        shortage=lambda: shortages[-1],
        use=None,
        log=lambda _sentence: logged.release(),
    )
    for name in ('first', 'second', 'third'):
        policies.request(name)
        wait_until(lambda: begun, what='the first')
    assert begun == ['first']
    let.release(2)
    assert logged.acquire(timeout=TIMEOUT_S)
    assert (begun, policies.state) == (['first', 'third'], 'ready')
    shortages.append('little memory is left')
    policies.request('fourth')
    assert logged.acquire(timeout=TIMEOUT_S)
    assert policies.sentence == 'fourth is refused: little memory is left'
    assert begun == ['first', 'third']
