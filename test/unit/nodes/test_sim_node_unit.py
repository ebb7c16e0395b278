"""The parameter file of the arena's node."""

from pathlib import Path

import yaml

from mobile_vla_ros.sim.arena import Judge

ROOT = Path(__file__).resolve().parents[3]


def test_the_default_timeout_of_a_trial_is_the_judge_s():
    """The same as that of `mobile_vla simulate` without nodes."""
    text = (ROOT / 'config' / 'sim.yaml').read_text()
    assert yaml.safe_load(text)['/**']['ros__parameters']['trial_timeout_s'] == Judge().timeout_s
