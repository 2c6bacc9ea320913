"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): one update."""

from __future__ import annotations

import torch
from torch import Tensor

from mbrl_async.algorithms.batch import Batch
from mbrl_async.algorithms.fisher import FisherProduct
from mbrl_async.algorithms.flat import assign, flatten
from mbrl_async.algorithms.trust_region import TrustRegion
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Metrics, State


class TRPO(TrustRegion):
    """A trust-region step of a policy on samples of its own."""

    def update(self, policy: GaussianMLP, observations: Tensor, actions: Tensor, advantages: Tensor) -> Metrics:
        """Improve the policy in place, or leave it exactly as it is if no try gains within the trust region.

        Args:
            policy: the one that sampled the actions.
            observations: (N, O).
            actions: (N, A), as the policy sampled them.
            advantages: (N,).

        Raises:
            NonFiniteError: the gradient, and so an observation, action, advantage or parameter, is not finite.
        """
        batch = (observations, actions, advantages)
        maximum = self.maximise(_PolicyObjective(policy, *batch, self.curvature_interval))
        assign(list(policy.parameters()), maximum.parameters)
        return maximum.metrics

    def state_dict(self) -> State:
        """Empty: each update begins anew."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""


class _PolicyObjective:
    """The mean of ratio x advantage; tries parameters by assigning them to the policy, and leaves them there."""

    def __init__(
        self, policy: GaussianMLP, observations: Tensor, actions: Tensor, advantages: Tensor, curvature_interval: int
    ) -> None:
        self._policy = policy
        self._parameters = list(policy.parameters())
        self._distribution: Gaussian = policy(observations)  # (N, A)
        self._interval = curvature_interval
        self._batch = Batch(observations, actions, advantages, self._distribution.detach())
        self.start = flatten(self._parameters).detach()  # (P,)

    def surrogate_and_gradient(self) -> tuple[float, Tensor]:
        surrogate = self._batch.surrogate(self._distribution)
        gradient = flatten(torch.autograd.grad(surrogate, self._parameters, retain_graph=True))  # (P,)
        return float(surrogate.detach()), gradient

    def curvature(self, damping: float) -> FisherProduct:
        # All samples have been evaluated already.
        every = self._interval == 1
        seen = self._distribution if every else self._policy(self._batch.observations[:: self._interval])
        return FisherProduct(seen, self._parameters, damping)

    @torch.no_grad()
    def surrogate_and_kl(self, parameters: Tensor) -> tuple[float, float]:
        assign(self._parameters, parameters)
        new: Gaussian = self._policy(self._batch.observations)
        return float(self._batch.surrogate(new)), float(new.kl_from(self._batch.old).mean())
