"""The proof that a policy drives as well with int8 weights, and the bundle that has it."""

import json
from math import exp, lgamma, log

import pytest

from command_line import run_main
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.rollout import quantise
from mobile_vla_ros.rollout.quantise import MARGIN, most_worse
from mobile_vla_ros.rollout.simulation import Settings, Simulation


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Run the command on the demo's policy with few trials on a CPU."""
    return run_main(capsys, 'quantise', 'builtin:demo', '--device', 'cpu', *arguments)


def test_the_proof_is_in_the_bundle_which_then_drives(tmp_path, capsys, monkeypatch):
    """The whole gate, with a margin that four trials can show."""
    monkeypatch.setattr(quantise, 'MARGIN', 0.5)
    out = tmp_path / 'int8'
    status, text, err = run(capsys, '--out', out, '--trials', 4, '--json')
    assert status == 0, err
    proof = read_spec(out).int8
    assert {'policy': str(out), **proof} == json.loads(text)
    assert (proof['trials'], proof['compared_with']) == (4, 'fp32')
    assert proof['bytes'][1] < proof['bytes'][0] and proof['at_most_worse'] <= 0.5
    driven = Settings(out, 1, 0, device='cpu', precision='int8', quiet=True)
    with Simulation(driven, ['unseen_layouts']) as simulation:
        assert len(simulation.drive('unseen_layouts')[0]) == 1


def test_what_is_not_shown_is_not_written_and_continues(tmp_path, capsys, monkeypatch):
    """Exit status 1 with the figures; more trials begin behind those that are kept."""
    monkeypatch.setattr(quantise, 'MARGIN', 0.9)
    monkeypatch.setattr(quantise, 'most_worse', lambda *_: 1.0)
    out = tmp_path / 'int8'
    status, text, _ = run(capsys, '--out', out, '--trials', 1)
    assert status == 1 and not out.exists()
    assert 'at most 100.0 points worse; 90 are allowed' in text and 'not shown' in text
    logs = [tmp_path / 'int8_trials' / name / 'unseen_layouts.jsonl' for name in ('fp32', 'int8')]
    before = [path.read_text() for path in logs]
    run(capsys, '--out', out, '--trials', 2)
    for path, kept in zip(logs, before, strict=True):
        assert path.read_text().startswith(kept) and path.read_text().count('\n') == 3


@pytest.mark.parametrize('given', [('--trials', 132), ('--precision', 'int8')])
def test_what_can_show_nothing_is_refused_at_once(tmp_path, capsys, given):
    """Too few trials even if no two differ; int8 beside itself."""
    status, _, err = run(capsys, '--out', tmp_path / 'int8', *given)
    assert status == 2 and 'at least 133 trials' in err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    """Found before anything is driven."""
    assert run(capsys, '--out', tmp_path)[0] == 2


@pytest.mark.parametrize('pairs', [150, 300])
@pytest.mark.parametrize('better', [1e-9, 0.01, 0.05])
def test_a_policy_that_is_worse_by_the_margin_passes_rarely(pairs, better):
    """All outcomes, weighted: about one in twenty, whether few or many pairs differ."""
    worse = better + MARGIN

    def chance(w: int, b: int) -> float:
        same = pairs - w - b
        ways = lgamma(pairs + 1) - lgamma(w + 1) - lgamma(b + 1) - lgamma(same + 1)
        return exp(ways + w * log(worse) + b * log(better) + same * log(1 - worse - better))

    passed = [
        chance(w, b) for w in range(40) for b in range(40) if most_worse(w, b, pairs) <= MARGIN
    ]
    assert sum(passed) < 0.065


def test_the_bound_of_known_cases():
    """No two differ: 133 pairs are the fewest for 2 points; as many both ways: 300 allow five."""
    assert most_worse(0, 0, 132) > MARGIN >= most_worse(0, 0, 133)
    assert most_worse(5, 5, 300) <= MARGIN < most_worse(3, 0, 300)
    assert most_worse(0, 10, 300) < 0
