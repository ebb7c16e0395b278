"""Choice of the torch device by name."""

import torch

from mobile_vla_ros.errors import UserError, first_line


def pick_device(name: str) -> torch.device:
    """
    Return a torch device.

    :param name: `cpu`, `cuda`, `cuda:1` …, or `auto`: the GPU where there is one.
    :raises UserError: when the device is not available.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f'the device {name!r} cannot be used ({first_line(error)})',
            expected='auto, cpu, or a GPU that torch can see',
            remedy='use --device cpu, or install a torch built for the GPU',
        ) from error
    return device
