"""Policies in a process of their own: what they promise, and how they fail."""

import gc
import shlex
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from mobile_vla_ros import Frame, UserError, load_policy
from mobile_vla_ros.runtime.own_policy import is_own, own_policy
from mobile_vla_ros.runtime.process_policy import ProcessPolicy, end_all

PEER = Path(__file__).parents[2] / 'helpers' / 'peer.py'
COMMAND = f'{shlex.quote(sys.executable)} -I -S {PEER}'
WINDOW = [
    Frame(np.full((480, 640, 3), value, np.uint8), stamp, stamp)
    for value, stamp in ((1, 100_000_000), (0, 200_000_000))
]
SUM = 480 * 640 * 3 / 1e6  # of all bytes, in millions


@pytest.fixture
def policy():
    """A policy in a process that is given up after three seconds."""
    return ProcessPolicy(COMMAND, answer_s=3.0)


def newest_child() -> psutil.Process:
    """Return the process of the policy that was started last."""
    return max(psutil.Process().children(), key=lambda one: one.create_time())


def test_it_drives_by_its_name_as_any_other(tmp_path):
    """The whole window arrives, the plan has its axes and times, the process ends with it."""
    name = f'process:{COMMAND}'
    assert is_own(name)
    policy = load_policy(name).policy
    child = newest_child()
    plan = policy.infer(WINDOW, 'go')
    assert (plan.stamp_ns, plan.rate_hz, plan.twists.shape) == (200_000_000, 10.0, (5, 6))
    assert plan.twists[4] == pytest.approx([SUM, 0, 0, 0, 0, 1])
    assert policy.infer(WINDOW, 'go').twists[0, 5] == 0, 'reset() once, before the first window'
    policy.reset()
    assert policy.infer(WINDOW, 'go').twists[0, 5] == 1
    del policy
    gc.collect()
    assert not child.is_running()


@pytest.mark.parametrize(
    ('mood', 'words'),
    [
        ('refuse', 'refuses; got I do not know this word'),
        ('lie', 'another plan than its spec says; got shape (5, 1)'),
        ('words', 'sends no plan'),
        ('nothing', "sends no plan; got KeyError('twists')"),
    ],
)
def test_what_is_no_plan_is_a_fault_and_the_next_one_is_read(mood, words, policy):
    """Of this window alone."""
    with pytest.raises(UserError) as fault:
        policy.infer(WINDOW, mood)
    assert words in str(fault.value)
    assert policy.infer(WINDOW, 'go').twists[0, 0] == pytest.approx(SUM)


@pytest.mark.parametrize(
    ('mood', 'words'),
    [
        ('other', 'answers another request; got id 8, not 1'),
        ('twice', 'sends no line of JSON'),
        ('list', 'sends no object; got []'),
        ('garbage', 'sends no line of JSON'),
    ],
)
def test_an_answer_to_no_request_kills_it(mood, words, policy):
    """The next ones might be plans for earlier images, stamped as if they were new."""
    child = newest_child()
    with pytest.raises(UserError) as fault:
        policy.infer(WINDOW, mood)
    assert words in str(fault.value)
    assert not child.is_running()
    with pytest.raises(UserError, match='has ended; got SIGKILL'):
        policy.infer(WINDOW, 'go')


def test_an_answer_too_many_kills_it_before_the_next_request(policy):
    """Whenever it came; the plan before it was good."""
    policy.infer(WINDOW, 'again')
    time.sleep(0.5)
    with pytest.raises(UserError, match='answers unasked'):
        policy.infer(WINDOW, 'go')
    with pytest.raises(UserError, match='has ended; got SIGKILL'):
        policy.infer(WINDOW, 'go')


def test_it_ends_with_all_that_it_started(capfd, monkeypatch):
    """A shell, say; and what it prints is not our output."""
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    policy = ProcessPolicy(f'sh -c "echo threads $OMP_NUM_THREADS; {COMMAND}; true"')
    shell = newest_child()
    (child,) = shell.children()
    end_all()
    assert not shell.is_running()
    child.wait(5)
    assert capfd.readouterr() == ('', 'threads 1\n')
    with pytest.raises(UserError, match='has ended; got SIGKILL'):
        policy.infer(WINDOW, 'go')


@pytest.mark.parametrize('how', ['die', 'flood', signal.SIGKILL])
def test_one_that_has_ended_stays_a_fault(how, policy):
    """Whether it left, was killed, or sent without end; nothing is started again."""
    if isinstance(how, str):
        with pytest.raises(UserError, match='has ended; got '):
            policy.infer(WINDOW, how)
    else:
        newest_child().send_signal(how)
    for _ in range(2):
        with pytest.raises(UserError, match=r'has ended; got (status 7|SIGKILL)'):
            policy.infer(WINDOW, 'go')


def test_a_silent_one_is_given_up_in_time_and_its_late_answer_dropped(policy, monkeypatch):
    """Stopped by a real signal, in the middle of what it should read; then it goes on."""
    child = newest_child()
    child.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(policy, '_answer_s', 0.3)
        for _ in range(2):
            with pytest.raises(UserError, match='is silent; got no answer'):
                policy.infer(WINDOW, 'go')
    child.send_signal(signal.SIGCONT)
    newer = [Frame(2 * frame.image, frame.stamp_ns, 0) for frame in WINDOW]
    assert policy.infer(newer, 'go').twists[0, 0] == pytest.approx(2 * SUM), 'of the new window'


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('/no/such/program', 'cannot be started; got No such file'),
        ('"', 'cannot be started; got No closing quotation'),
        ('false', 'has ended; got status 1'),
        (f'{COMMAND} nonsense', 'has ended; got status 1'),
        (f"""{COMMAND} '{{"axes": ["sideways"]}}'""", "unknown axis; got 'sideways'"),
        (f"""{COMMAND} '{{"axes": 3}}'""", 'sends no valid spec'),
        (f"""{COMMAND} '{{"rate_hz": "fast"}}'""", "rate_hz is 'fast', not a number"),
        (f"""{COMMAND} '{{"rate_hz": NaN}}'""", 'nan'),
        (f"""{COMMAND} '{{"window": 1.5}}'""", 'window is 1.5, not a whole number'),
        (f"""{COMMAND} '{{"chunk": 1001}}'""", 'chunk is 1001, not a whole number from 1 to 1000'),
    ],
)
def test_one_that_cannot_start_is_refused_in_a_sentence(command, words):
    """As a class that cannot be made."""
    with pytest.raises(UserError) as refused:
        own_policy(f'process:{command}')
    assert words in str(refused.value)
    assert '\n' not in str(refused.value)
