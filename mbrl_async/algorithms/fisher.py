"""Exact products with a Gaussian policy's Fisher matrix, which is the Hessian of the mean KL at the old policy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mbrl_async.algorithms.flat import flatten, split_like
from mbrl_async.policies.gaussian import Gaussian


class FisherProduct:
    """Maps v (P,) to (J' F J + damping I) v (P,).

    J is the Jacobian of the distribution's mean and log_std with respect to the parameters, F the Fisher matrix of
    the Gaussian itself: 1 / std^2 for a mean, 2 for a log_std. Forming the product from J costs about half of
    differentiating the mean KL twice, and gives the same: at the old policy the KL has no slope, so its second
    derivatives of the outputs drop out (Schulman et al. 2015, arXiv:1502.05477, appendix C).

    Args:
        distribution: at N observations, still attached to the parameters. Of J policies with N / J observations each,
            the mean KL is over all observations: each policy's product is divided by J.
        parameters: of which the distribution is made, P numbers in all.
        damping: at least 0.
        weights: (J, N / J), of each observation of J policies in the mean KL; None: all count alike.
    """

    def __init__(
        self, distribution: Gaussian, parameters: Sequence[Tensor], damping: float, weights: Tensor | None = None
    ) -> None:
        self._outputs = (distribution.mean, distribution.log_std)  # (N, A), (A,); or (J, N / J, A), (J, 1, A)
        self._parameters = parameters
        self._damping = damping
        rows, policies = (math.prod(output.shape[:-1]) for output in self._outputs)
        precision = torch.exp(-2 * distribution.log_std.detach())  # (A,)
        self._mean_weight = precision / rows if weights is None else precision * weights[..., None]
        self._log_std_weight = 2 / policies if weights is None else 2 * weights.sum(-1)[..., None, None]
        # u -> J'u is linear in u, so its derivative along v with respect to u is J v; the graph is built once.
        self._cotangents = tuple(torch.zeros_like(output, requires_grad=True) for output in self._outputs)
        self._pulled_back = torch.autograd.grad(self._outputs, parameters, self._cotangents, create_graph=True)

    def __call__(self, vector: Tensor) -> Tensor:
        """The product with `vector` (P,)."""
        mean, log_std = torch.autograd.grad(
            self._pulled_back, self._cotangents, split_like(vector, self._parameters), retain_graph=True
        )  # J v, as the outputs
        weighted = (mean * self._mean_weight, self._log_std_weight * log_std)
        product = torch.autograd.grad(self._outputs, self._parameters, weighted, retain_graph=True)
        return flatten(product) + self._damping * vector
