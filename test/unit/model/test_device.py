"""Which device and precision a name stands for."""

import pytest
import torch

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model import device
from mobile_vla_ros.model.device import pick_device, pick_precision


def test_auto_is_float32_on_a_cpu():
    """As it always was; a precision by name stays."""
    assert pick_precision('auto', 'cpu') == 'fp32'
    assert [pick_precision(name, 'cpu') for name in ('fp32', 'bf16', 'fp16')] == [
        'fp32', 'bf16', 'fp16',
    ]  # fmt: skip


@pytest.mark.parametrize(('capability', 'expected'), [((8, 7), 'bf16'), ((7, 5), 'fp32')])
def test_auto_is_bfloat16_on_a_gpu_that_computes_in_it(monkeypatch, capability, expected):
    """An Orin (8.7) does, a Turing card does not; the GPU asked is the one named."""
    asked = []

    def capability_of(gpu):
        asked.append(gpu)
        return capability

    monkeypatch.setattr(device, 'pick_device', torch.device)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', capability_of)
    assert pick_precision('auto', 'cuda:1') == expected
    assert asked == [torch.device('cuda:1')]


def test_a_device_has_the_number_that_was_given():
    """`cuda:1` is not the first GPU; numbers of CPUs mean nothing, but are kept all the same."""
    assert pick_device('cpu:0') == torch.device('cpu', 0)


def test_an_unknown_precision_is_refused():
    """With a suggestion."""
    with pytest.raises(UserError, match=r"unknown precision; got 'fp61'.*auto, fp32, bf16, fp16"):
        pick_precision('fp61', 'cpu')
