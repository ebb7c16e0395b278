"""Hot swap in the live node: another policy loads while one drives, and drives when it may."""

import threading

from mobile_vla_ros.nodes.inference.policies import Policies
from mobile_vla_ros.runtime.loading import ReadyPolicy
from ros_helpers import wait_until


def test_policies_are_loaded_one_at_a_time_and_only_into_free_memory():
    """Each would take as much memory as the one that drives, which a full machine kills."""
    begun, let, said, rooms = [], threading.Semaphore(0), threading.Semaphore(0), ['']

    def load(name):
        begun.append(name)
        assert let.acquire(timeout=10)
        return ReadyPolicy(name, None, True, 'well')

    policies = Policies(
        load=load, room=lambda: rooms[-1], take=None, say=lambda _sentence: said.release()
    )
    for name in ('first', 'second', 'third'):
        policies.ask(name)
        wait_until(lambda: begun, 10, 'the first')
    assert begun == ['first']
    let.release(2)
    assert said.acquire(timeout=10)
    assert (begun, policies.state) == (['first', 'third'], 'ready')
    rooms.append('little memory is left')
    policies.ask('fourth')
    assert said.acquire(timeout=10)
    assert policies.said == 'fourth is refused: little memory is left'
    assert begun == ['first', 'third']
