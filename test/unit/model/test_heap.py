"""Which of its free memory a process keeps."""

import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from mobile_vla_ros.model.packing import give_back, pages_of_their_own

with pages_of_their_own():
    pass
weights, rows = torch.ones(2048, 2048, dtype=torch.int8), torch.ones(70, 2048).bfloat16()

def step():
    parts = [rows @ block.to(rows.dtype).T for block in weights.split(512)]
    return torch.cat(parts, -1)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    step(){then}
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(('then', 'again'), [('', False), ('; give_back()', True)])
def test_what_a_step_frees_is_used_again_unless_given_back(then, again):
    """A page that went back is a fault, and is zeroed; a block of weights has 512 of them."""
    done = subprocess.run(
        [sys.executable, '-c', STEPS.replace('{then}', then)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) > 50 * 512) == again, done.stdout
