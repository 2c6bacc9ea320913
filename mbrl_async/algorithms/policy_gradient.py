"""One policy-improvement step on rollouts, whether they are real or imagined."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.imagination import Rollouts
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Metrics, State, require_finite


class PolicyUpdate(Protocol):
    """A policy-gradient method."""

    def update(self, policy: GaussianMLP, observations: Tensor, actions: Tensor, advantages: Tensor) -> Metrics:
        """Improve the policy in place from (N, O), (N, A) as sampled, (N,)."""

    def state_dict(self) -> State:
        """What the method remembers from update to update, as a copy; empty if nothing."""

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""


class PolicyGradientImprovement:
    """Estimate advantages, update.

    Args:
        advantages: turns rewards into advantages.
        update: improves the policy with these.
    """

    def __init__(self, *, advantages: AdvantageEstimator, update: PolicyUpdate) -> None:
        self._advantages = advantages
        self._update = update

    def improve(self, policy: GaussianMLP, rollouts: Rollouts) -> Metrics:
        """Improve the policy in place by one step.

        Raises:
            NonFiniteError: an advantage, the gradient or a parameter is not finite.
        """
        advantages = self._advantages.estimate(rollouts.observations, rollouts.rewards, rollouts.ends)  # (T, R)
        happened = rollouts.ends.happened(len(advantages))  # (T, R), with N steps
        observations = rollouts.observations[:-1][happened]  # (N, O)
        metrics = self._update.update(policy, observations, rollouts.actions[happened], advantages[happened])
        require_finite(flatten(list(policy.parameters())), "A policy parameter after the update")
        policy.lift_to_floor()
        return metrics | {"log_std": float(policy.log_std.detach().mean())}

    def state_dict(self) -> State:
        """The update's, as a copy."""
        return {"update": self._update.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._update.load_state_dict(state["update"])
