"""The Gaussian output against autograd, against torch's own normal distribution, and on data of known noise."""

from __future__ import annotations

import pytest
import torch

from mbrl_async.dynamics.mlp import BatchedMLP
from mbrl_async.dynamics.outputs import Gaussian

MEMBERS, SPREAD, PENALTY = 3, 4, 0.3


def gaussian(lower: float = -2.0, upper: float = 0.5) -> Gaussian:
    return Gaussian(minimum_log_variance=lower, maximum_log_variance=upper, bound_penalty=PENALTY)


def by_the_book(outputs: torch.Tensor, extras: torch.Tensor) -> torch.distributions.Normal:
    """PETS, appendix A.1, written down once more; unit variance for the signals."""
    mean, raw = outputs.tensor_split([outputs.shape[2] - SPREAD], dim=2)
    lower, upper = extras[:, None].chunk(2, dim=2)
    log_variance = upper - torch.logaddexp(upper - raw, torch.zeros_like(raw))
    log_variance = lower + torch.logaddexp(log_variance - lower, torch.zeros_like(raw))
    signals = torch.zeros_like(mean[..., SPREAD:])
    return torch.distributions.Normal(mean, (0.5 * torch.cat([log_variance, signals], dim=2)).exp())


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 30.0])  # far beyond both bounds, too
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("signals", [0, 2])
def test_loss_and_gradient_of_a_network_are_those_of_autograd(signals: int, batch: int, scale: float) -> None:
    mlp = BatchedMLP([5, 7, 6, SPREAD + signals], gaussian(), signals)
    parameters = scale * random(MEMBERS, mlp.row_size)
    mlp.extras(parameters).copy_(gaussian().initial_extras(SPREAD) + 0.3 * random(MEMBERS, 2 * SPREAD, seed=1))
    inputs, targets = random(MEMBERS, batch, 5, seed=2) / scale, random(MEMBERS, batch, SPREAD + signals, seed=3)
    free = parameters.clone().requires_grad_()
    lower, upper = mlp.extras(free).chunk(2, dim=1)
    likelihood = by_the_book(mlp_outputs(mlp, free, inputs), mlp.extras(free)).log_prob(targets)
    losses = -likelihood.mean(dim=(1, 2))
    (expected,) = torch.autograd.grad((losses + PENALTY * (upper - lower).sum(1)).sum(), free)

    gradient = torch.zeros_like(parameters)
    found = mlp.loss_and_gradient(parameters, inputs, targets, gradient)
    # 1e-10 of the largest: float64 rounding (1e-16) through some hundred sums.
    size = float(expected.abs().max())
    torch.testing.assert_close(found, losses.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mlp.loss(parameters, inputs, targets), losses.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10 * max(1.0, size))


def mlp_outputs(mlp: BatchedMLP, parameters: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    *hidden, last = mlp.layers(parameters)
    for layer in hidden:
        inputs = torch.relu(inputs @ layer.weight + layer.bias)
    return inputs @ last.weight + last.bias


def test_bounds_begin_where_they_are_configured() -> None:
    mlp = BatchedMLP([5, SPREAD], gaussian(-3.0, 0.25))
    parameters = mlp.initial_parameters(MEMBERS, torch.Generator().manual_seed(0))
    assert mlp.extras(parameters).tolist() == [[-3.0] * SPREAD + [0.25] * SPREAD] * MEMBERS


def test_draws_have_the_predicted_mean_and_deviation_within_the_bounds() -> None:
    outputs = torch.tensor([2.0, -1.0, 5.0, 0.0, -100.0, 0.1, 100.0, -0.4]).expand(1, 100_000, 8)
    extras = gaussian().initial_extras(SPREAD)[None]
    expected = by_the_book(outputs[:, :1], extras)
    drawn = gaussian().sample(outputs, extras, torch.Generator().manual_seed(0))
    deviation = expected.stddev[0, 0]
    # Standard errors of mean and deviation are 0.0032 and 0.0022 of the deviation; the bounds are five of them.
    assert ((drawn.mean(1)[0] - outputs[0, 0, :4]).abs() < 0.016 * deviation).all()
    assert ((drawn.std(1)[0] - deviation).abs() < 0.011 * deviation).all()
    # Soft bounds overshoot by at most log(1 + exp(lower - upper)) = 0.079.
    log_variance = 2 * deviation.log()
    assert log_variance[0] >= -2.0
    assert -2.0 <= log_variance[2] <= 0.5 + 0.08


def test_the_generator_determines_the_draws() -> None:
    outputs, extras = random(MEMBERS, 5, 2 * SPREAD), gaussian().initial_extras(SPREAD).expand(MEMBERS, -1)
    first, same, other = (gaussian().sample(outputs, extras, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"minimum_log_variance=1.0 is not below maximum_log_variance=0.5: lower the"):
        gaussian(lower=1.0)


def test_an_ensemble_draws_outcomes_and_clips_observations_alone(make_ensemble) -> None:
    ensemble = make_ensemble(output=gaussian(), signals=2, limit=0.5)
    rows = (torch.randn(3, 200, 3, generator=torch.Generator().manual_seed(2)), torch.zeros(3, 200, 2))
    first, second = (ensemble.predictor().predict(*rows, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert first.shape == (3, 200, 5)
    assert first[..., :3].abs().max() == 0.5
    assert first[..., 3:].abs().max() > 0.5  # of 1200 answers of about unit size
    assert not torch.equal(first[..., :3], second[..., :3])
    assert torch.equal(first[..., 3:], second[..., 3:]), "signals are not drawn"
