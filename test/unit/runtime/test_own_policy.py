"""Policies that are code: found by name, checked when made, and plan by plan."""

import sys

import numpy as np
import pytest

from mobile_vla_ros import ActionSpec, Frame, Plan, UserError, load_policy, spec_without_network
from mobile_vla_ros.errors import Left
from mobile_vla_ros.rollout.drivers import fingerprint
from mobile_vla_ros.runtime.own_policy import is_own, own_policy
from mobile_vla_ros.runtime.preflight import check_instruction

TEXT = """
import numpy as np
from mobile_vla_ros import ActionSpec, Plan, UserError, spec_without_network
from mobile_vla_ros.errors import Left

class Good:
    axes = ('linear_x',)
    def __init__(self, speed=0.25):
        actions = ActionSpec(axes=self.axes, scale=(1.0,))
        self.spec = spec_without_network('good', actions, rate_hz=10.0, window=2, chunk=3)
        self.speed, self.resets, self.seen = float(speed), 0, []
    def infer(self, window, instruction):
        self.seen.append((window[-1].image.max(), instruction))
        twists = np.zeros((3, 6)); twists[:, 0] = self.speed
        return Plan(window[-1].stamp_ns, twists, 10.0)
    def reset(self):
        self.resets += 1

class Flying(Good):
    axes = ('linear_z',)

class Raises:
    def __init__(self):
        raise RuntimeError('no weights')

class Refuses:
    def __init__(self):
        raise UserError('no weights at W', remedy='copy them')

class Exits:
    def __init__(self):
        raise SystemExit(3)

class Leaves:
    def __init__(self):
        raise Left(0)

class Puzzled(Good):
    def unknown_words(self, instruction):
        return 1 / 0

class Bare:
    pass

class Mute(Good):
    infer = None

class Wrong(Good):
    def __init__(self):
        super().__init__()
        object.__setattr__(self.spec, 'rate_hz', float('nan'))
        object.__setattr__(self.spec, 'window', 65)

def a_class():
    return Good

NOTHING = 7
"""
IMAGE = np.full((4, 4, 3), 200, np.uint8)
WINDOW = [Frame(IMAGE, stamp, stamp) for stamp in (100_000_000, 200_000_000)]


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """The folder of a module `stranger`, which Python finds, and of a package that names it."""
    (tmp_path / 'stranger.py').write_text(TEXT)
    (tmp_path / 'broken.py').write_text('import no_such_library\n')
    folder = tmp_path / 'stranger-1.dist-info'
    folder.mkdir()
    (folder / 'METADATA').write_text('Metadata-Version: 2.1\nName: stranger\nVersion: 1\n')
    (folder / 'entry_points.txt').write_text(
        '[mobile_vla_ros.policies]\ngood = stranger:Good\nlost = stranger:Lost\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ('stranger', 'broken'):
        sys.modules.pop(name, None)


def test_a_class_is_found_by_its_module_and_by_its_entry_point(stranger):
    """The latter with an argument, too; asking whether it is one imports nothing."""
    assert all(map(is_own, ('stranger:Good', 'a.b:C', 'good', 'good:0.5')))
    assert not any(map(is_own, ('builtin:demo', 'builtin:x', 'runs/best', 'best', 'a:b:c', '')))
    assert 'stranger' not in sys.modules
    for name, speed in (('stranger:Good', 0.25), ('good', 0.25), ('good:0.5', 0.5)):
        plan = own_policy(name).infer(WINDOW, 'go')
        assert plan.twists.tolist() == [[speed, 0, 0, 0, 0, 0]] * 3
        assert (plan.stamp_ns, plan.rate_hz) == (200_000_000, 10.0)


def test_a_folder_of_that_name_is_a_bundle(stranger, monkeypatch):
    """What lies there is never imported instead."""
    monkeypatch.chdir(stranger)
    (stranger / 'stranger:Good').mkdir()
    assert not is_own('stranger:Good')
    with pytest.raises(UserError, match='no policy bundle'):
        load_policy('stranger:Good')


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('nowhere:Policy', ("No module named 'nowhere'", 'PYTHONPATH')),
        ('broken:Policy', ("'no_such_library' (broken.py, line 1)",)),
        ('stranger:Lost', ("no attribute 'Lost'",)),
        ('lost', ("no attribute 'Lost'",)),
        ('stranger:Raises', ('cannot be made', 'RuntimeError: no weights (stranger.py, line ')),
        ('stranger:Refuses', ('no weights at W. Copy them.',)),
        ('stranger:Exits', ('cannot be made', 'SystemExit: 3')),
        ('stranger:NOTHING', ('cannot be made', 'not callable')),
        ('stranger:Bare', ('no infer(); no reset(); its spec is NoneType',)),
        ('stranger:Mute', ('no infer()',)),
        (
            'stranger:Wrong',
            ('spec.rate_hz is nan, not a number', 'spec.window is 65, not a whole'),
        ),
        ('stranger:a_class', ('a class, not a policy',)),
        ('stranger:Flying', ('does not fit the base',)),
    ],
)
def test_what_cannot_drive_is_refused_in_a_sentence(name, words, stranger):
    """It says what is wrong, and in which line of the policy's code."""
    with pytest.raises(UserError) as refused:
        load_policy(name)
    assert '\n' not in str(refused.value)
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_a_signal_during_the_load_is_no_mistake_of_the_policy(stranger):
    """It goes on to what ends the node."""
    with pytest.raises(Left):
        own_policy('stranger:Leaves')


def test_one_that_cannot_say_which_words_it_knows_fails_the_check_alone(stranger):
    """Not the node, whose executor asks."""
    check = check_instruction(own_policy('stranger:Puzzled'), 'go')
    assert not check.ok
    assert 'its unknown_words() failed: ZeroDivisionError' in check.sentence


class Liar:
    """Promises three steps ahead at 10 Hz; `plan` is what it returns."""

    spec = spec_without_network('liar', ActionSpec(('linear_x',), (1.0,)), chunk=3)
    plan: object = None

    def infer(self, window, instruction):
        """Return the plan."""
        return Liar.plan

    def reset(self):
        """Do nothing."""


@pytest.mark.parametrize(
    ('plan', 'words'),
    [
        (None, 'no Plan; got NoneType'),
        (Plan(200_000_000, np.zeros((3, 2)), 10.0), 'twists (3, 2)'),
        (Plan(200_000_000, np.zeros((30, 6)), 10.0), 'twists (30, 6)'),
        (Plan(900_000_000, np.zeros((3, 6)), 10.0), 'stamp_ns 900000000'),
        (Plan(200_000_000, np.zeros((3, 6)), 1.0), 'rate_hz 1.0'),
        (Plan(200_000_000, np.ones((3, 6)), 10.0), 'an axis that its spec does not name'),
    ],
)
def test_a_plan_that_its_spec_does_not_promise_is_refused(plan, words, monkeypatch):
    """It never reaches playback: the node reports a fault."""
    monkeypatch.setattr(Liar, 'plan', plan)
    with pytest.raises(UserError) as refused:
        own_policy(f'{__name__}:Liar').infer(WINDOW, 'go')
    assert words in str(refused.value)


def test_trials_of_a_command_belong_to_its_files(tmp_path):
    """To another text of the program, too; it is not started."""
    (tmp_path / 'peer.py').write_text('1')
    command = f'process:no_such_program {tmp_path / "peer.py"} tcp://localhost {"x" * 300}'
    before = fingerprint(command)
    (tmp_path / 'peer.py').write_text('2')
    assert fingerprint(command) != before


def test_a_plan_stays_as_it_was_checked(monkeypatch):
    """Whatever the policy writes into its array afterwards."""
    twists = np.zeros((3, 6))
    monkeypatch.setattr(Liar, 'plan', Plan(200_000_000, twists, 10.0))
    plan = own_policy(f'{__name__}:Liar').infer(WINDOW, 'go')
    twists[:] = 9.0
    assert not plan.twists.any()


def test_controls_hide_the_image_and_the_instruction(stranger):
    """As of a bundle; the policy itself is made the same way."""
    for blank, seen in (('', (200, 'go')), ('image', (0, 'go')), ('instruction', (200, ''))):
        own = own_policy('stranger:Good', blank)
        own.infer(WINDOW, 'go')
        assert own._policy.seen == [seen]
        assert own.spec.blank == blank


def test_its_trials_belong_to_its_name_and_its_file(stranger):
    """Another argument, or a changed file, is another policy; nothing is made."""
    before = {name: fingerprint(name) for name in ('stranger:Raises', 'good', 'good:0.5')}
    assert len(set(before.values())) == 3
    (stranger / 'stranger.py').write_text(TEXT + '\n')
    assert all(fingerprint(name) != old for name, old in before.items())
