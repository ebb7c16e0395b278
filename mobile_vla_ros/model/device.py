"""Choice of the torch device and of the precision by name."""

import torch

from mobile_vla_ros.errors import UserError, did_you_mean, first_line

AUTO = 'auto'
INT8 = 'int8'  # of the weights alone
PRECISIONS = {
    'fp32': torch.float32,
    'bf16': torch.bfloat16,
    'fp16': torch.float16,
    INT8: torch.int8,
}
BFLOAT16_SINCE = (8, 0)  # compute capability of the first GPU that computes in bfloat16: Ampere


def pick_device(name: str) -> torch.device:
    """
    Return a torch device.

    :param name: `cpu`, `cuda`, `cuda:1` …, or `auto`: the GPU where there is one.
    :raises UserError: when the device is not available.
    """
    if name == AUTO:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f'the device {name!r} cannot be used ({first_line(error)})',
            expected='auto, cpu, or a GPU that torch can see: cuda, cuda:1 …',
            remedy='use --device cpu, or install a torch built for the GPU',
        ) from error
    return device


def check_precision(name: str) -> None:
    """Raise UserError for a precision that is neither `auto` nor in ``PRECISIONS``."""
    if name != AUTO and name not in PRECISIONS:
        raise UserError(
            'unknown precision',
            got=repr(name),
            expected=', '.join((AUTO, *PRECISIONS)),
            remedy=did_you_mean(name, (AUTO, *PRECISIONS)),
        )


def pick_precision(name: str, device: str) -> str:
    """
    Return a key of ``PRECISIONS``.

    :param name: that key, or `auto`: bf16 on a GPU that computes in it, else fp32.
    :param device: as for ``pick_device``.
    :raises UserError: for an unknown precision, or a device that is not available.
    """
    check_precision(name)
    if name != AUTO:
        return name
    found = pick_device(device)
    return 'bf16' if found.type == 'cuda' and computes_bfloat16(found) else 'fp32'


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes in bfloat16 itself; torch emulates it slowly on older ones."""
    capability: tuple[int, int] = torch.cuda.get_device_capability(device)
    return capability >= BFLOAT16_SINCE
