"""Takes as training and evaluation load them, and the ones that are refused."""

import pytest
from made_runs import write_worth

from mobile_vla_ros.data.runs import Sampling, fingerprint, load_runs
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.training.takes import load_takes


def test_a_broken_take_is_named_and_the_rest_goes_on(takes, tmp_path):
    """One bad file neither stops the training nor disappears in silence."""
    broken = tmp_path / '20260101T000000Z_00000000.h5'
    broken.write_bytes(b'no HDF5')
    runs, skipped = load_runs([*find_episodes(takes)[:1], broken], Sampling())
    assert len(runs) == 1
    assert list(skipped) == [str(broken)]
    assert skipped[str(broken)].startswith('it cannot be read as an episode')


def test_bad_takes_are_left_out_unless_they_are_asked_for(tmp_path):
    """The verdict is obeyed, the reason is told, and the user has the last word."""
    paths = {verdict: write_worth(tmp_path, verdict, number)
             for number, verdict in enumerate(('good', 'poor', 'bad'))}
    runs, skipped = load_runs(paths.values(), Sampling())
    assert {run.path for run in runs} == {paths['good'], paths['poor']}
    assert list(skipped) == [str(paths['bad'])]
    assert skipped[str(paths['bad'])].startswith('verdict bad: the picture stood still')
    runs, skipped = load_runs(paths.values(), Sampling(), ['good', 'poor', 'bad'])
    assert {run.path for run in runs} == set(paths.values()) and not skipped
    _, skipped = load_runs(paths.values(), Sampling(), ['good'])
    assert set(skipped) == {str(paths['poor']), str(paths['bad'])}
    with pytest.raises(UserError, match=r'goood.*Did you mean'):
        load_runs(paths.values(), Sampling(), ['goood'])


def test_unfinished_take_is_never_learned_from(tmp_path):
    """A file whose writer died may be whole or not: it is recovered first."""
    path = write_worth(tmp_path, 'good', finished=False)
    _, skipped = load_runs([path], Sampling(), ['good', 'poor', 'bad'])
    assert 'recover' in skipped[str(path)]


def test_the_fingerprint_knows_the_commands(takes):
    """Two sets of takes differ in their fingerprint when one command differs."""
    runs, _ = load_runs(find_episodes(takes)[:2], Sampling())
    first = fingerprint(runs)
    assert first == fingerprint(runs[::-1])
    runs[0].ahead[0, 0, 0] += 1e-3
    assert fingerprint(runs) != first


def test_a_bundle_s_split_is_kept(takes):
    """Evaluating on the training data must not count trained takes as validation."""
    ids = [path.stem for path in find_episodes(takes)]
    found = load_takes(takes, Sampling(), ['good', 'poor'], 0.5, 0,
                       known={'train_episodes': [*ids[:4], 'elsewhere']})
    assert {run.episode_id for run in found.train} == set(ids[:4])
    assert {run.episode_id for run in found.val} == set(ids[4:])
    assert not found.trained_on
