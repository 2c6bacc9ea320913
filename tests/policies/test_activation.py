import pytest
import torch

from mbrl_async.policies.activation import Tanh, tanh


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1.2e-7), (torch.float64, 2.3e-16)])
def test_it_is_the_hyperbolic_tangent_to_the_rounding_of_one(dtype, rounding):
    inputs = torch.cat([torch.linspace(-30, 30, 20_001, dtype=dtype), torch.tensor([-1e30, 1e30, 0], dtype=dtype)])
    assert (Tanh()(inputs) - inputs.tanh()).abs().max() <= 2 * rounding, "two roundings: of the sigmoid and of ours"
    assert tanh(torch.tensor(torch.nan)).isnan()


def test_both_derivatives_are_exact():
    inputs = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tanh, inputs)
    assert torch.autograd.gradgradcheck(tanh, inputs)


def test_the_inputs_are_left_alone():
    inputs = torch.tensor([0.5, -2.0])
    Tanh()(inputs)
    assert inputs.tolist() == [0.5, -2.0]


def test_it_is_the_same_to_the_last_bit_whether_it_is_differentiated_or_not():
    inputs = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(tanh(inputs), tanh(inputs.clone().requires_grad_()))
