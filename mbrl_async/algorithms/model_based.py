"""One policy-improvement step on imagined rollouts: ME-TRPO and its kin, which differ in the update alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from pydantic import PositiveInt
from torch import Tensor

from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.imagination import (
    Model,
    RewardFunction,
    Rollouts,
    StartObservations,
    imagine,
    require_equal_shares,
)
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Metrics, Parameters, State, require_finite


class PolicyUpdate(Protocol):
    """A policy-gradient method."""

    def update(self, policy: GaussianMLP, observations: Tensor, actions: Tensor, advantages: Tensor) -> Metrics:
        """Improve the policy in place from (N, O), (N, A) as sampled, (N,)."""

    def state_dict(self) -> State:
        """What the method remembers from update to update, as a copy; empty if nothing."""

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""


class ImaginedPolicyImprovement:
    """Imagine, estimate advantages, update: the policy worker's step (arXiv:1910.12453, §4).

    Args:
        rollouts: imagined a step; a multiple of the ensemble's members.
        horizon: steps of each.
        advantages: turns them into advantages.
        update: improves the policy with these.
    """

    def __init__(
        self, *, rollouts: PositiveInt, horizon: PositiveInt, advantages: AdvantageEstimator, update: PolicyUpdate
    ) -> None:
        self._rollouts = rollouts
        self._horizon = horizon
        self._advantages = advantages
        self._update = update

    def require_compatible(self, members: int) -> None:
        """Refuse, before a run starts, an ensemble that cannot share the rollouts equally.

        Raises:
            ValueError: the number of rollouts is not a multiple of the members.
        """
        require_equal_shares(self._rollouts, members)

    def improve(
        self,
        policy: GaussianMLP,
        model: Model,
        reward: RewardFunction,
        starts: StartObservations,
        generator: torch.Generator,
        check_interrupted: Callable[[], None],
    ) -> Metrics:
        """Improve the policy in place by one step.

        Raises:
            Interrupted: from `check_interrupted`; the policy is then as it was.
            NonFiniteError: an imagined value, the gradient or a parameter is not finite.
        """
        rollouts = imagine(policy, model, reward, starts(self._rollouts), self._horizon, generator, check_interrupted)
        metrics = self._improve_on(policy, rollouts)
        require_finite(flatten(list(policy.parameters())), "A policy parameter after the update")
        return metrics | {
            "imagined_return": float(rollouts.undiscounted_returns.mean()),
            "log_std": float(policy.log_std.detach().mean()),
        }

    def published(self, policy: GaussianMLP) -> Parameters:
        """The policy's parameters."""
        return policy.state_dict()

    def state_dict(self) -> State:
        """The update's, as a copy."""
        return {"update": self._update.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._update.load_state_dict(state["update"])

    def _improve_on(self, policy: GaussianMLP, rollouts: Rollouts) -> Metrics:
        advantages = self._advantages.estimate(rollouts.observations, rollouts.rewards)  # (T, R)
        observations = rollouts.observations[:-1].flatten(0, 1)  # (T R, O)
        return self._update.update(policy, observations, rollouts.actions.flatten(0, 1), advantages.flatten())
