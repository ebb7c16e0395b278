"""Whether a loaded policy still says what it said when its bundle was written."""

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.model.golden import STORE, Golden
from mobile_vla_ros.runtime.policy import VlaPolicy
from mobile_vla_ros.types import NANOSECONDS, Frame

# By how much a normalised action (the full range is -1 to 1) may differ from the golden one. Of
# 32 windows of builtin:demo the worst was 2e-7 with adapters merged in float32 on a CPU, 2e-4 with
# every product in TF32 (what a GPU may make of float32), 5e-4 in float16 and 2e-3 in bfloat16; six
# to ten times that is allowed. Another instruction moved them by 0.5 (median), blank images by
# 0.4, colours as BGR or no adapters by 0.03.
TOLERANCES = {'fp32': 1e-3, 'fp16': 5e-3, 'bf16': 2e-2}
# What the golden actions themselves were computed in.
WRITTEN_IN = {'float32': 'fp32', 'float16': 'fp16', 'bfloat16': 'bf16'}


def golden_check(policy: VlaPolicy, golden: Golden | None, precision: str) -> tuple[bool, str]:
    """
    Show a policy its golden frames, through all that drives, and compare what it says.

    The policy has forgotten what it saw before and after; ask it while it does not drive.

    :param golden: as `read_golden` gave them; None: the bundle has none.
    :param precision: that the policy was loaded in: fp32, bf16 or fp16.
    :returns: whether all is well; the sentence for an operator, with the remedy when it is not.
    :raises UserError: for another precision.
    """
    if precision not in TOLERANCES:
        raise UserError(
            'unknown precision',
            got=repr(precision),
            expected=', '.join(TOLERANCES),
            remedy=did_you_mean(precision, TOLERANCES),
        )
    if golden is None:
        return False, (
            f'the bundle has no golden frames, so nothing shows that this device '
            f'computes what was trained; {STORE} adds them'
        )
    spec = policy.spec
    if spec.blank and not golden.blank:
        return True, (
            f'golden frames are not asked for: the policy is driven without its {spec.blank} now'
        )
    side = spec.image.size
    wanted = (spec.window, side, side, 3), (spec.chunk, len(spec.actions.axes))
    found = golden.frames.shape, golden.actions.shape
    if found != wanted or golden.blank != spec.blank:
        return False, (
            f'the golden frames are of another policy: got {found[0]} and {found[1]}, '
            f'expected {wanted[0]} and {wanted[1]}; {STORE} writes its own'
        )
    tolerance = max(TOLERANCES[precision], TOLERANCES[WRITTEN_IN[golden.precision]])
    policy.reset()
    period_ns = round(NANOSECONDS / spec.rate_hz)
    window = [
        Frame(image, (row + 1) * period_ns, (row + 1) * period_ns)
        for row, image in enumerate(golden.frames)
    ]
    try:
        actions = spec.actions.normalise(policy.infer(window, golden.instruction).twists)
    finally:
        policy.reset()
    worst = float(np.abs(actions - golden.actions).max())
    figures = f"{worst:.1g} of the axes' scale (at most {tolerance:g} in {precision})"
    if worst <= tolerance:  # what is no number is not
        return True, f'golden frames come back within {figures}'
    return False, (
        f'golden frames come back wrong, by {figures}: this device, precision or '
        'library does not compute what was trained; drive with precision:=fp32 or '
        'device:=cpu, or restore the bundle'
    )
