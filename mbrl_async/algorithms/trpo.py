"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): one update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.algorithms.batch import Batch
from mbrl_async.algorithms.conjugate_gradient import conjugate_gradient
from mbrl_async.algorithms.fisher import FisherProduct
from mbrl_async.algorithms.flat import assign, flatten
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Metrics, State, require_finite


class TRPO:
    """A natural-gradient step of the surrogate, as long as the mean KL(old || new) allows.

    Args:
        step_size: delta, the largest mean KL of one update.
        conjugate_gradient_iterations: Fisher products spent on the direction.
        damping: added to the Fisher matrix's diagonal.
        backtrack_ratio: each try is this much shorter than the last.
        backtracks: tries before the update is given up.
    """

    def __init__(
        self,
        *,
        step_size: PositiveFloat,
        conjugate_gradient_iterations: PositiveInt,
        damping: Annotated[float, Field(ge=0)],
        backtrack_ratio: Annotated[float, Field(gt=0, lt=1)],
        backtracks: PositiveInt,
    ) -> None:
        self._step_size = step_size
        self._iterations = conjugate_gradient_iterations
        self._damping = damping
        self._backtrack_ratio = backtrack_ratio
        self._backtracks = backtracks

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
        parameters = list(policy.parameters())
        distribution: Gaussian = policy(observations)  # (N, A)
        batch = Batch(observations, actions, advantages, distribution.detach())
        surrogate = batch.surrogate(distribution)
        gradient = flatten(torch.autograd.grad(surrogate, parameters, retain_graph=True))  # (P,)
        require_finite(gradient, "The policy gradient")
        direction = self._direction(distribution, parameters, gradient)  # (P,)
        metrics = self._line_search(policy, batch, parameters, direction, float(surrogate.detach()))
        return metrics | {"gradient_norm": float(gradient.norm())}

    def state_dict(self) -> State:
        """Empty: each update begins anew."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""

    def _direction(self, distribution: Gaussian, parameters: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """The full step (P,): the natural gradient, at the length where KL is step_size to second order."""
        fisher = FisherProduct(distribution, parameters, self._damping)
        natural_gradient = conjugate_gradient(fisher, gradient, self._iterations)  # (P,)
        # KL = x' F x / 2, and conjugate gradients leave x' F x = x . gradient; 0 only where the gradient is.
        curvature = (natural_gradient @ gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
        return natural_gradient * torch.sqrt(2 * self._step_size / curvature)

    @torch.no_grad()
    def _line_search(
        self, policy: GaussianMLP, batch: Batch, parameters: Sequence[Tensor], step: Tensor, surrogate: float
    ) -> Metrics:
        """Take the longest of the tried steps that gains and stays in the trust region, or none."""
        start = flatten(parameters)  # (P,)
        for backtracks in range(self._backtracks):
            assign(parameters, start + self._backtrack_ratio**backtracks * step)
            new: Gaussian = policy(batch.observations)
            gain = float(batch.surrogate(new)) - surrogate
            kl = float(new.kl_from(batch.old).mean())
            if gain > 0 and kl <= self._step_size:
                return _search_metrics(kl, gain, True, backtracks)
        assign(parameters, start)
        return _search_metrics(0.0, 0.0, False, self._backtracks)


def _search_metrics(kl: float, gain: float, accepted: bool, backtracks: int) -> Metrics:
    return {
        "kl": kl,
        "surrogate_gain": gain,
        "line_search_accepted": float(accepted),
        "line_search_backtracks": float(backtracks),
    }
