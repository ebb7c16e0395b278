"""`mobile_vla compare`: paired statistics, controls, resumed runs, and the page."""

import json

import numpy as np
import pytest

from command_line import run_main
from mobile_vla_ros import ActionSpec, Plan, UserError, spec_without_network
from mobile_vla_ros.rollout.compare import Driver, against, drivers, result, verdicts
from mobile_vla_ros.rollout.paired import holm, mean_interval, rate_interval, sign_test
from mobile_vla_ros.rollout.trials import Drive, Trial, spl


def compare(capsys, *arguments) -> dict:
    """Run the command with --json; return what it prints."""
    status, out, err = run_main(capsys, 'compare', *arguments, '--json')
    assert status == 0, err
    return json.loads(out)


def drive(good: bool, length_m: float = 3.0, kind: str = 'go_to', change=0.5) -> Drive:
    """Return a drive of 10 s; the expert needs 3 m."""
    outcome = 'success' if good else 'collision'
    return Drive(
        *('seen', 0, 'go', kind, outcome, 10.0, [], length_m, 0.1, 8.0, 3.0),
        change_mps2=change,
    )


def driver(name: str, goods: str, control: str = '', **other) -> Driver:
    """Return a driver whose trials succeed where `goods` has a 1."""
    trials = [Trial(i, (drive(good == '1', **other),)) for i, good in enumerate(goods)]
    return Driver(name, control, {'seen': trials})


def test_the_sign_test_is_exact():
    """Known cases, both sides alike; without a difference p is 1."""
    assert sign_test(0, 0) == sign_test(3, 3) == sign_test(3, 4) == 1
    assert sign_test(0, 6) == sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(2, 10) == pytest.approx(0.0386, abs=1e-4)


def test_several_findings_are_raised_by_holm():
    """The smallest p counts for all, the next for one less, and none falls below one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_of_a_difference_covers_it():
    """Of pairs of equal rates about 95 % contain 0, by the score and by the bootstrap."""
    rng = np.random.default_rng(1)
    shares = means = 0
    for _ in range(1000):
        a, b = rng.random((2, 60)) < 0.8
        low, high = rate_interval(int((a & ~b).sum()), int((b & ~a).sum()), 60)
        shares += low <= 0 <= high
    for _ in range(300):
        low, high = mean_interval(rng.normal(size=60))
        means += low <= 0 <= high
    assert mean_interval([1.0] * 9) is None
    assert shares / 1000 == pytest.approx(0.95, abs=0.02)
    assert means / 300 == pytest.approx(0.95, abs=0.03)


def test_swapped_policies_give_mirrored_results():
    """To the last bit: what is more for one is less for the other."""
    one = driver('one', '1101110111' * 3, length_m=3.5, change=0.25)
    other = driver('other', '1000110010' * 3, length_m=4.5, change=0.75)
    (ab,), (ba,) = against(one, other), against(other, one)
    assert (ab['only_a'], ab['only_b'], ab['p']) == (ba['only_b'], ba['only_a'], ba['p'])
    assert ab['more'].keys() == {'success', 'collision', 'spl', 'time_s', 'change_mps2'}
    for name, more in ab['more'].items():
        mirrored = ba['more'][name]
        assert more['value'] == -mirrored['value']
        assert more['interval'] == [-mirrored['interval'][1], -mirrored['interval'][0]]
    assert ab['more']['success']['value'] == pytest.approx(-0.4)
    assert ab['more']['change_mps2']['value'] == pytest.approx(0.5)


def test_a_policy_against_itself_shows_no_difference():
    """No p below 1, every difference 0, and the sentence says so."""
    found = result([driver('one', '110' * 4), driver('one', '110' * 4)])
    (row,) = found['pairs']
    assert (row['only_a'], row['only_b'], row['p'], row['p_holm']) == (0, 0, 1, 1)
    assert all(more['value'] == 0 for more in row['more'].values())
    assert verdicts(found) == [
        'seen: no difference shown between one and one '
        '(only one: 0, only one: 0 of 12 trials; p 1)'
    ]


def test_a_policy_that_uses_an_input_beats_its_control():
    """A blind one is named; controls are compared with their own policy alone."""
    those = [
        driver('sees', '1' * 10),
        driver('sees', '0' * 10, 'image'),
        driver('blind', '1' * 10),
        driver('blind', '1' * 9 + '0', 'image'),
    ]
    found = result(those)
    assert [(row['a'], row['b'], row['uses']) for row in found['controls']] == [
        ('sees without image', 'sees', True),
        ('blind without image', 'blind', False),
    ]
    assert [(row['a'], row['b']) for row in found['pairs']] == [('sees', 'blind')]
    said = verdicts(found)
    assert len(said) == 2
    assert said[1].startswith('seen: blind is not shown to drive better than blind without image')


def test_success_is_weighted_by_the_expert_s_path():
    """Twice its path counts half, a shorter one no more than 1, a failure or a stop nothing."""
    assert spl([drive(True, 6.0)]) == 0.5
    assert spl([drive(True, 1.0), drive(False, 3.0)]) == 0.5
    assert spl([drive(True, 6.0), drive(True, 0.0, 'stop')]) == 0.5
    assert spl([drive(True, 0.0, 'stop')]) is None


class Ahead:
    """A policy that drives ahead, whatever it sees and hears."""

    def __init__(self):
        self.spec = spec_without_network('ahead', ActionSpec())

    def infer(self, window, instruction):
        """Return a second at 0.8 m/s."""
        return Plan(window[-1].stamp_ns, np.tile([0.8, 0, 0, 0, 0, 0], (10, 1)), 10.0)

    def reset(self):
        """Do nothing."""


def test_the_same_scenes_are_driven_logged_and_continued(tmp_path, capsys):
    """Logs are those of `simulate --out`, which a further run goes on with; the page has all."""
    out, policy = tmp_path / 'out', f'{__name__}:Ahead'
    arguments = ('--policies', 'expert', policy, '--suite', 'swap', '--out', out)
    found = compare(capsys, *arguments, '--trials', 1)
    assert [(one['name'], one['control']) for one in found['drivers']] == [
        ('expert', ''),
        (policy, ''),
        (policy, 'image'),
        (policy, 'instruction'),
    ]
    assert len([path for path in out.iterdir() if path.is_dir()]) == 4
    expert = out / 'expert' / 'swap.jsonl'
    one = expert.read_bytes()
    status, _, err = run_main(
        *(capsys, 'simulate', '--suite', 'swap', '--trials', 2, '--out', out / 'expert', '--json')
    )
    assert status == 0, err
    two = expert.read_bytes()
    assert two.startswith(one)
    again = compare(capsys, *arguments, '--trials', 2)
    assert expert.read_bytes() == two, 'nothing is driven twice'
    assert {row['trials'] for row in again['pairs']} == {2}
    driven = again['drivers'][0]['suites']['swap']
    assert driven['spl'] == pytest.approx(1)
    assert 0 < driven['change_mps2'] < 2
    assert driven['change_radps2'] == 0, 'the expert keeps its heading'
    assert {(row['a'], row['uses']) for row in again['controls']} == {
        (f'{policy} without image', False),
        (f'{policy} without instruction', False),
    }
    page = (out / 'report.html').read_text()
    assert f'no difference shown between expert and {policy}' in page
    assert f'{policy} is not shown to drive better than {policy} without image' in page


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (('--policies', 'expert', '/no/such/policy'), '/no/such/policy'),
        (('--policies', 'expert', '--trials', 0), 'nothing to drive'),
        (('--policies', 'expert', '--suite', 'unsen'), 'unknown suite'),
        (('--policies',), 'expected at least one argument'),
    ],
)
def test_bad_use_ends_with_a_sentence_before_anything_drives(arguments, text, tmp_path, capsys):
    """Also for the last of the policies; nothing is written."""
    out = tmp_path / 'out'
    status, _, err = run_main(capsys, 'compare', '--out', out, *arguments)
    assert status == 2
    assert text in err
    assert not out.exists()


def test_policies_of_one_folder_of_trials_are_refused_before_driving():
    """`runs/a` and `runs_a` would share their trials."""
    with pytest.raises(
        UserError, match='the same folder of trials; got builtin:demo, builtin:demo'
    ):
        drivers(['builtin:demo', 'expert', 'builtin:demo'])
