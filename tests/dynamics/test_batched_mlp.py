from __future__ import annotations

import math

import pytest
import torch

from mbrl_async.dynamics.mlp import BatchedMLP
from mbrl_async.dynamics.outputs import Point


def by_the_book(mlp: BatchedMLP, parameters: torch.Tensor, member: int, inputs: torch.Tensor) -> torch.Tensor:
    """One member's outputs, from torch's own linear layer."""
    *hidden, last = mlp.layers(parameters)
    activation = inputs
    for layer in hidden:
        activation = torch.relu(torch.nn.functional.linear(activation, layer.weight[member].t(), layer.bias[member, 0]))
    return torch.nn.functional.linear(activation, last.weight[member].t(), last.bias[member, 0])


def random_problem(sizes: list[int], batch: int) -> tuple[BatchedMLP, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mlp = BatchedMLP(sizes, Point())
    # Random biases too: with initial ones of zero, a forgotten bias would not be seen.
    parameters = torch.randn(3, mlp.row_size, generator=generator, dtype=torch.float64)
    inputs = torch.randn(3, batch, sizes[0], generator=generator, dtype=torch.float64)
    return mlp, parameters, inputs, torch.randn(3, batch, sizes[-1], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sizes", [[5, 3], [5, 7, 3], [5, 8, 6, 7, 3]])
@pytest.mark.parametrize("batch", [1, 11])
def test_outputs_loss_and_gradient_are_those_of_autograd(sizes: list[int], batch: int) -> None:
    mlp, parameters, inputs, targets = random_problem(sizes, batch)
    parameters.requires_grad_()
    outputs = torch.stack([by_the_book(mlp, parameters, member, inputs[member]) for member in range(3)])
    losses = (outputs - targets).square().mean(dim=(1, 2))
    (expected,) = torch.autograd.grad(losses.sum(), parameters)

    parameters.requires_grad_(False)
    used = sum(size for layer in mlp.layers(parameters) for size in (layer.weight[0].numel(), layer.bias[0].numel()))
    gradient = torch.full_like(parameters, torch.nan)  # NaN stays wherever nothing is written
    gradient[:, used:] = 0  # the padding
    kept = inputs.clone()
    found = mlp.loss_and_gradient(parameters, inputs, targets, gradient)
    # 1e-10: float64 rounding (1e-16) through some hundred sums of numbers of up to a thousand.
    torch.testing.assert_close(
        mlp.apply(mlp.compute_layers(parameters), inputs), outputs.detach(), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(found, losses.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(inputs, kept)


@pytest.mark.parametrize("outputs", [1, 3, 8, 16])
def test_rows_are_padded_to_whole_cache_lines(outputs: int) -> None:
    mlp = BatchedMLP([1, outputs], Point())  # 2 numbers an output
    assert mlp.row_size == {1: 16, 3: 16, 8: 16, 16: 32}[outputs]
    parameters = mlp.initial_parameters(2, torch.Generator().manual_seed(0))
    assert not parameters[:, outputs:].any()  # weights first; then biases and padding, all zero


def test_initial_weights_are_glorot_uniform_and_biases_zero() -> None:
    mlp = BatchedMLP([30, 50, 20], Point())
    layers = mlp.layers(mlp.initial_parameters(4, torch.Generator().manual_seed(0)))
    for layer, (inputs, outputs) in zip(layers, [(30, 50), (50, 20)], strict=True):
        bound = math.sqrt(6 / (inputs + outputs))
        assert layer.weight.shape == (4, inputs, outputs)
        assert not layer.bias.any()
        # Of 4000 uniform draws or more, one lies in the outermost hundredth but for a chance of 0.99^4000 = 3e-18.
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        # Standard error of the variance of 4000 uniform draws: 1.4 %; 7 % is 5 of them.
        assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.07)


def test_the_generator_determines_the_initial_weights() -> None:
    first, same, other = (
        BatchedMLP([3, 2], Point()).initial_parameters(2, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # members differ


def test_products_between_hidden_layers_may_have_less_precision() -> None:
    sizes, generator = [5, 64, 64, 3], torch.Generator().manual_seed(0)
    exact, coarse = BatchedMLP(sizes, Point()), BatchedMLP(sizes, Point(), precision=torch.bfloat16)
    parameters = exact.initial_parameters(3, generator)
    inputs, targets = (torch.randn(3, 32, size, generator=generator) for size in (5, 3))
    assert [layer.weight.dtype for layer in coarse.compute_layers(parameters)] == [
        torch.float32,
        torch.bfloat16,
        torch.float32,
    ]
    gradients = torch.zeros_like(parameters), torch.zeros_like(parameters)
    losses = [
        mlp.loss_and_gradient(parameters, inputs, targets, each)
        for mlp, each in zip((exact, coarse), gradients, strict=True)
    ]
    # bfloat16 has 8 bits: each rounding is off by 0.4 % at most, and those of 64 terms partly cancel.
    torch.testing.assert_close(*losses, rtol=0.01, atol=0)
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm()
    assert not torch.equal(*gradients), "nothing was rounded"
    outputs = coarse.apply(coarse.compute_layers(parameters), inputs)
    assert outputs.dtype == torch.float32
    assert torch.equal(coarse.loss(parameters, inputs, targets), (outputs - targets).square().mean(dim=(1, 2)))
