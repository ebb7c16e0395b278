"""The check that a loaded policy reproduces the golden actions of its bundle."""

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.model.golden import STORE, Golden
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.types import NANOSECONDS, Frame

# Maximum difference of a normalised action (full range -1 to 1) from the golden one. The worst of
# 32 windows of builtin:demo was 2e-7 with adapters merged in float32 on a CPU, 2e-4 with all
# products in TF32 (which a GPU may use for float32), 5e-4 in float16 and 2e-3 in bfloat16; six to
# ten times that is allowed. Another instruction changed the actions by 0.5 (median), blank images
# by 0.4, BGR colours or missing adapters by 0.03. In int8 the
# worst was 7.5e-3; what is allowed stays below what a missing adapter changes.
TOLERANCES = {'fp32': 1e-3, 'fp16': 5e-3, 'bf16': 2e-2, 'int8': 2e-2}
# Precision of the golden actions → key of TOLERANCES.
WRITTEN_IN = {'float32': 'fp32', 'float16': 'fp16', 'bfloat16': 'bf16'}


def check_golden(policy: VlaPolicy, golden: Golden | None, precision: str) -> tuple[bool, str]:
    """
    Run a policy on its golden frames, as in driving, and compare the actions.

    The policy is reset before and after; call this while it does not drive.

    :param golden: from `read_golden`; None: the bundle has none.
    :param precision: that the policy was loaded in: a key of ``TOLERANCES``.
    :returns: whether the actions match, and a sentence for the operator, with a remedy if not.
    :raises UserError: for an unknown precision.
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
            'the bundle has no golden frames to show that this device computes what was trained; '
            f'{STORE} adds them'
        )
    spec = policy.spec
    if spec.blank and not golden.blank:
        return True, (f'golden frames are skipped: the policy is driven without its {spec.blank}')
    side = spec.image.size
    wanted = (spec.window, side, side, 3), (spec.chunk, len(spec.actions.axes))
    found = golden.frames.shape, golden.actions.shape
    if found != wanted or golden.blank != spec.blank:
        return False, (
            f'the golden frames are of another policy: got {found[0]} and {found[1]}, '
            f'expected {wanted[0]} and {wanted[1]}; {STORE} replaces them'
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
    if worst <= tolerance:  # False for NaN
        return True, f'golden frames are reproduced within {figures}'
    return False, (
        f'golden frames are not reproduced: the actions differ by {figures}; this device, '
        'precision or library does not compute what was trained; drive with precision:=fp32 or '
        'device:=cpu, or restore the bundle'
    )
