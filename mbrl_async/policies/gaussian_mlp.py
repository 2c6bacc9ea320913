"""The policy of the paper's simulated tasks: a small tanh network for the mean, free parameters for the spread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.policies.activation import Tanh
from mbrl_async.policies.gaussian import Gaussian


class GaussianMLP(torch.nn.Module):
    """Maps observations to a `Gaussian` over unclipped actions.

    Glorot-uniform weights, zero biases, tanh hidden layers, linear mean; the log standard deviations do not depend on
    the observation and never fall below their floor.

    Args:
        hidden: units of each hidden layer; none makes the mean linear in the observation.
        initial_log_std: of every action dimension.
        minimum_log_std: the floor.
        output_gain: what the Glorot-uniform weights of the mean are multiplied by; near zero, the first policy's mean
            is near the middle of the action range whatever it observes (Andrychowicz et al. 2021, section 3.2).
        generator: draws the weights; the global generator is left alone.
    """

    def __init__(
        self,
        *,
        observation_size: PositiveInt,
        action_size: PositiveInt,
        hidden: Sequence[PositiveInt],
        initial_log_std: float,
        minimum_log_std: float,
        output_gain: PositiveFloat = 1.0,  # runs that were recorded before there was one do not say it
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        if initial_log_std < minimum_log_std:
            # Below the floor the gradient is zero: the spread could never be learned.
            raise ValueError(
                f"initial_log_std={initial_log_std} is below minimum_log_std={minimum_log_std}: raise the former."
            )
        super().__init__()
        widths = [observation_size, *hidden]
        layers: list[torch.nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [glorot_linear(inputs, outputs, generator), Tanh()]
        self.mean = torch.nn.Sequential(*layers, glorot_linear(widths[-1], action_size, generator, gain=output_gain))
        self.log_std = torch.nn.Parameter(torch.full((action_size,), float(initial_log_std)))
        self.minimum_log_std = minimum_log_std
        self.to(device)

    def forward(self, observations: Tensor) -> Gaussian:
        """The distribution of the action after each observation (..., O)."""
        return Gaussian(self.mean(observations), self._floored_log_std)

    @torch.no_grad()
    def lift_to_floor(self) -> None:
        """To be called after an update: what it has pushed below the floor would have no gradient there."""
        self.log_std.clamp_(min=self.minimum_log_std)

    @property
    def std(self) -> Tensor:
        """How far the actions scatter around their means: (A,)."""
        return self._floored_log_std.exp()

    @property
    def _floored_log_std(self) -> Tensor:
        return self.log_std.clamp(min=self.minimum_log_std)


def glorot_linear(inputs: int, outputs: int, generator: torch.Generator, gain: float = 1.0) -> torch.nn.Linear:
    """A linear layer with Glorot-uniform weights times `gain` and zero bias, on the generator's device."""
    # Made without storage, because the layer's own initialisation would draw from the global generator.
    layer = torch.nn.Linear(inputs, outputs, device="meta").to_empty(device=generator.device)
    torch.nn.init.xavier_uniform_(layer.weight, gain=gain, generator=generator)
    torch.nn.init.zeros_(layer.bias)
    return layer
