"""Rollouts of a policy in the learned ensemble: every step, each model predicts an equal share of the rollouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import clip_action, require_finite

RewardFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(observations (..., O), executed actions (..., A), next observations (..., O)) -> rewards (...)."""

StartObservations = Callable[[int], Tensor]
"""count -> (count, O): where imagined rollouts start."""

Act = Callable[[Tensor], Gaussian]
"""observations (..., O) -> the distribution of the actions after them."""

Predict = Callable[[int, Tensor, Tensor], Tensor]
"""(step, observations (..., O), executed actions (..., A)) -> next observations (..., O)."""


class Model(Protocol):
    """What imagination needs of the ensemble."""

    @property
    def members(self) -> int:
        """M."""

    def predict(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Next observations (M, B, O) for (M, B, O) and executed actions (M, B, A): each member has its own rows."""


@dataclass(frozen=True)
class Rollouts:
    """R rollouts of T steps, side by side; of J tasks, (J, R) in the place of R."""

    observations: Tensor  # (T + 1, R, O)
    actions: Tensor  # (T, R, A), as the policy sampled them: the model was asked with `clip_action(actions)`
    rewards: Tensor  # (T, R)

    @property
    def undiscounted_returns(self) -> Tensor:
        """Sum of the rewards of each rollout, (R,) or (J, R)."""
        return self.rewards.sum(0)


def imagine(
    policy: GaussianMLP,
    model: Model,
    reward: RewardFunction,
    starts: Tensor,
    horizon: int,
    generator: torch.Generator,
    check_interrupted: Callable[[], None],
) -> Rollouts:
    """Let the policy act in the model from each start, for `horizon` steps.

    Args:
        policy: samples the actions.
        model: M members, of which each predicts R / M of the rollouts in each step.
        reward: called once, on all T R transitions.
        starts: (R, O).
        horizon: T.
        generator: draws the policy's noise and, for each step, which member predicts which rollout.
        check_interrupted: called every step; may raise `Interrupted`.

    Raises:
        ValueError: R is not a multiple of the members, starts are no (R, O), or there is no step to imagine.
        NonFiniteError: a predicted observation or a reward is not finite.
    """
    if starts.ndim != 2 or horizon < 1:
        raise ValueError(f"starts {tuple(starts.shape)} and horizon={horizon}: give starts (R, O) and 1 or more steps.")
    require_equal_shares(len(starts), model.members)
    noise, partitions = _draw(policy, len(starts), horizon, generator, starts.device)

    def predict(step: int, observations: Tensor, actions: Tensor) -> Tensor:
        rows = partitions[step]  # (R,): the first R / M rollouts go to the first member, and so on
        predicted = _predict(model, observations[rows], actions[rows])
        return torch.empty_like(observations).index_copy_(0, rows, predicted)

    return roll_out(policy, predict, reward, starts, noise, check_interrupted)


@torch.no_grad()
def roll_out(
    act: Act,
    predict: Predict,
    reward: RewardFunction,
    starts: Tensor,
    noise: Tensor,
    check_interrupted: Callable[[], None],
) -> Rollouts:
    """Act and predict in turn, from `starts` (..., O), as long as there is `noise` (T, ..., A) for the actions.

    Raises:
        NonFiniteError: a predicted observation or a reward is not finite.
    """
    observations = starts.new_empty(len(noise) + 1, *starts.shape)  # (T + 1, ..., O)
    observations[0] = starts
    actions = torch.empty_like(noise)  # (T, ..., A)
    for step in range(len(noise)):
        check_interrupted()
        actions[step] = act(observations[step]).sample(noise[step])
        observations[step + 1] = predict(step, observations[step], clip_action(actions[step]))
    require_finite(observations, "An imagined observation")
    rewards = reward(observations[:-1], clip_action(actions), observations[1:])  # (T, ...)
    require_finite(rewards, "An imagined reward")
    return Rollouts(observations, actions, rewards)


def require_equal_shares(rollouts: int, members: int) -> None:
    """Refuse a number of rollouts that the members cannot share equally.

    Raises:
        ValueError: with the nearest numbers that they can.
    """
    if rollouts < 1 or rollouts % members:
        lower = max(rollouts // members, 1) * members
        raise ValueError(
            f"rollouts={rollouts} cannot be shared equally by {members} ensemble members: "
            f"choose a multiple of {members}, such as {lower} or {lower + members}."
        )


def _draw(
    policy: GaussianMLP, rollouts: int, horizon: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """All the randomness of some rollouts: the policy's noise (T, R, A), and a permutation of them a step (T, R)."""
    source = generator.device
    noise = torch.randn(horizon, rollouts, len(policy.log_std), generator=generator, device=source)
    partitions = torch.rand(horizon, rollouts, generator=generator, device=source).argsort(dim=1)
    return noise.to(device), partitions.to(device)


def _predict(model: Model, observations: Tensor, actions: Tensor) -> Tensor:
    """Next observations (R, O): the first R / M rows are predicted by the first member, and so on."""
    shares = (model.members, len(observations) // model.members, -1)
    return model.predict(observations.view(shares), actions.view(shares)).flatten(0, 1)
