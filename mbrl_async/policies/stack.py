"""Several policies of one shape, computed side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mbrl_async.policies.activation import tanh
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP


class PolicyStack:
    """The shape of J policies whose parameters are one flat tensor (J, P), a row a policy.

    A row holds a policy's parameters in the order of its `parameters()`. Nothing is held here, so gradients with
    respect to all rows are one call.

    Args:
        policy: gives the shape; it is not kept.
    """

    def __init__(self, policy: GaussianMLP) -> None:
        self._shapes = {name: parameter.shape for name, parameter in policy.named_parameters()}
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        self._minimum_log_std = policy.minimum_log_std

    @property
    def action_size(self) -> int:
        """A."""
        return self._shapes["log_std"].numel()

    def distribution(self, parameters: Tensor, observations: Tensor) -> Gaussian:
        """The distributions of the J policies (J, P), each after its own observations (J, B, O).

        Returns:
            mean (J, B, A), log_std (J, 1, A).
        """
        named = self.named(parameters)
        log_std = self._log_std(named.pop("log_std"))[:, None]  # (J, 1, A)
        weights, biases = list(named.values())[::2], list(named.values())[1::2]
        activation = torch.baddbmm(biases[0][:, None], observations, weights[0].mT)  # (J, B, H)
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            activation = torch.baddbmm(bias[:, None], tanh(activation), weight.mT)
        return Gaussian(activation, log_std)

    def std(self, parameters: Tensor) -> Tensor:
        """How far the actions of the J policies (J, P) scatter around their means: (J, A)."""
        return self._log_std(self.named(parameters)["log_std"]).exp()

    def named(self, parameters: Tensor) -> dict[str, Tensor]:
        """Views (J, ...) of the rows (J, P), under the names of the policy's parameters."""
        pieces = torch.split(parameters, self._sizes, dim=1)
        return {name: piece.view(-1, *shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}

    def _log_std(self, free: Tensor) -> Tensor:
        return free.clamp(min=self._minimum_log_std)
