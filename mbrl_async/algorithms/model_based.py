"""One policy-improvement step on imagined rollouts: ME-TRPO and its kin, which differ in the update alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import PositiveInt

from mbrl_async.algorithms.advantages import AdvantageEstimator
from mbrl_async.algorithms.imagination import (
    ImaginedTask,
    Model,
    StartObservations,
    imagine,
    require_equal_shares,
)
from mbrl_async.algorithms.policy_gradient import PolicyGradientImprovement, PolicyUpdate
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import Metrics, Parameters, State


class ImaginedPolicyImprovement:
    """Imagine, estimate advantages, update: the policy worker's step (arXiv:1910.12453, §4).

    Args:
        rollouts: imagined a step; a multiple of the ensemble's members.
        horizon: most steps of each; None: as many as a real trajectory has.
        advantages: turns them into advantages.
        update: improves the policy with these.
    """

    def __init__(
        self,
        *,
        rollouts: PositiveInt,
        horizon: PositiveInt | None,
        advantages: AdvantageEstimator,
        update: PolicyUpdate,
    ) -> None:
        self._rollouts = rollouts
        self._horizon = horizon
        self._improvement = PolicyGradientImprovement(advantages=advantages, update=update)

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
        task: ImaginedTask,
        starts: StartObservations,
        generator: torch.Generator,
        check_interrupted: Callable[[], None],
    ) -> Metrics:
        """Improve the policy in place by one step.

        Raises:
            Interrupted: from `check_interrupted`; the policy is then as it was.
            NonFiniteError: an imagined value, the gradient or a parameter is not finite.
        """
        horizon = self._horizon or task.spec.horizon
        rollouts = imagine(policy, model, task, starts(self._rollouts), horizon, generator, check_interrupted)
        metrics = self._improvement.improve(policy, rollouts)
        return metrics | {"imagined_return": float(rollouts.undiscounted_returns.mean())}

    def published(self, policy: GaussianMLP) -> Parameters:
        """The policy's parameters."""
        return policy.state_dict()

    def state_dict(self) -> State:
        """The update's, as a copy."""
        return self._improvement.state_dict()

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._improvement.load_state_dict(state)
