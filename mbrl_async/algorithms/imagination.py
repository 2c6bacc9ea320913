"""Rollouts of a policy in the learned ensemble: every step, each model predicts an equal share of the rollouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.types import RolloutEnds, TaskSpec, clip_action, require_finite

StartObservations = Callable[[int], Tensor]
"""count -> (count, O): where imagined rollouts start."""

Act = Callable[[Tensor], Tensor]
"""observations (..., O) -> the means (..., A) of the actions after them."""

Predict = Callable[[int, Tensor, Tensor], Tensor]
"""(step, observations (..., O), executed actions (..., A)) -> outcomes (..., O + E)."""


class ImaginedTask(Protocol):
    """What imagination needs of the task: how steps are rewarded, and when they end it."""

    @property
    def spec(self) -> TaskSpec:
        """Sizes and horizon."""

    def reward(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor:
        """Rewards (...) from observations (..., O), executed actions (..., A) and predicted outcomes (..., O + E)."""

    def termination(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor | None:
        """Which of these steps end the task for good, bool (...); None if none ever can."""


class Model(Protocol):
    """What imagination needs of the ensemble."""

    @property
    def members(self) -> int:
        """M."""

    def predict(self, observations: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Outcomes (M, B, O + E) for (M, B, O) and executed actions (M, B, A): each member has its own rows."""


@dataclass(frozen=True)
class Rollouts:
    """R rollouts of at most T steps, side by side; of J tasks, (J, R) in the place of R."""

    observations: Tensor  # (T + 1, R, O)
    actions: Tensor  # (T, R, A), as the policy sampled them: the model was asked with `clip_action(actions)`
    rewards: Tensor  # (T, R), 0 behind the end
    ends: RolloutEnds

    @property
    def undiscounted_returns(self) -> Tensor:
        """Sum of the rewards of each rollout, (R,) or (J, R)."""
        return self.rewards.sum(0)


def imagine(
    policy: GaussianMLP,
    model: Model,
    task: ImaginedTask,
    starts: Tensor,
    horizon: int,
    generator: torch.Generator,
    check_interrupted: Callable[[], None],
) -> Rollouts:
    """Let the policy act in the model from each start, for `horizon` steps or until the task terminates.

    Args:
        policy: samples the actions.
        model: M members, of which each predicts R / M of the rollouts in each step.
        task: its reward and termination are called once, on all T R transitions.
        starts: (R, O).
        horizon: T.
        generator: draws the policy's noise, which member predicts which rollout in each step, and what the model
            leaves to chance.
        check_interrupted: called every step; may raise `Interrupted`.

    Raises:
        ValueError: R is not a multiple of the members, starts are no (R, O), or there is no step to imagine.
        NonFiniteError: a predicted observation or a reward is not finite.
    """
    if starts.ndim != 2 or horizon < 1:
        raise ValueError(f"starts {tuple(starts.shape)} and horizon={horizon}: give starts (R, O) and 1 or more steps.")
    require_equal_shares(len(starts), model.members)
    size = (horizon, len(starts), len(policy.log_std))
    noise = torch.randn(size, generator=generator, device=generator.device).to(starts.device)  # (T, R, A)
    predict = predict_in_shares(model, draw_partitions(len(starts), horizon, generator, starts.device), generator)
    deviations = policy.std.detach() * noise
    return roll_out(policy.mean, predict, task, starts, deviations, check_interrupted)


@torch.no_grad()
def roll_out(
    act: Act,
    predict: Predict,
    task: ImaginedTask,
    starts: Tensor,
    deviations: Tensor,
    check_interrupted: Callable[[], None],
) -> Rollouts:
    """Act and predict in turn, from `starts` (..., O), as long as there are `deviations` (T, ..., A) from the means.

    What follows a termination is computed and then ignored: every step is one batch of the same shape.

    Raises:
        NonFiniteError: a predicted outcome or a reward is not finite.
    """
    size = starts.shape[-1]
    shape = (len(deviations) + 1, *starts.shape[:-1], size + len(task.spec.learned))
    outcomes = starts.new_zeros(shape)  # (T + 1, ..., O + E)
    observations = outcomes[..., :size]  # (T + 1, ..., O)
    observations[0] = starts
    actions = torch.empty_like(deviations)  # (T, ..., A)
    for step in range(len(deviations)):
        check_interrupted()
        torch.add(act(observations[step]), deviations[step], out=actions[step])
        outcomes[step + 1] = predict(step, observations[step], clip_action(actions[step]))
    require_finite(outcomes, "An imagined observation, reward or termination")
    return _judged(task, observations, actions, outcomes[1:])


def require_equal_shares(number: int, members: int, what: str = "rollouts") -> None:
    """Refuse a number of what the members are to share if they cannot share it equally.

    Raises:
        ValueError: with the nearest numbers that they can.
    """
    if number < 1 or number % members:
        lower = max(number // members, 1) * members
        raise ValueError(
            f"{what}={number} cannot be shared equally by {members} ensemble members: "
            f"choose a multiple of {members}, such as {lower} or {lower + members}."
        )


def draw_partitions(rollouts: int, horizon: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A random permutation of the rollouts for each step, (T, R)."""
    order = torch.rand(horizon, rollouts, generator=generator, device=generator.device).argsort(dim=1)
    return order.to(device)


def predict_in_shares(model: Model, partitions: Tensor, generator: torch.Generator) -> Predict:
    """In each step, the first R / M rollouts of its permutation (T, R) are predicted by the first member, and so on."""

    def predict(step: int, observations: Tensor, actions: Tensor) -> Tensor:
        rows = partitions[step]  # (R,)
        shares = (model.members, len(rows) // model.members, -1)
        their_observations, their_actions = (
            each.index_select(0, rows).view(shares) for each in (observations, actions)
        )
        predicted = model.predict(their_observations, their_actions, generator).flatten(0, 1)
        return torch.empty_like(predicted).index_copy_(0, rows, predicted)

    return predict


def _judged(task: ImaginedTask, observations: Tensor, actions: Tensor, outcomes: Tensor) -> Rollouts:
    """The rollouts that end where the task says, from (T + 1, ..., O), (T, ..., A), (T, ..., O + E)."""
    transitions = (observations[:-1], clip_action(actions), outcomes)
    rewards = task.reward(*transitions)  # (T, ...)
    terminations = task.termination(*transitions)
    if terminations is None:
        ends = RolloutEnds.at_horizon(rewards)
    else:
        ends = RolloutEnds.at_first(terminations)
        rewards = torch.where(ends.happened(len(rewards)), rewards, 0.0)
    require_finite(rewards, "An imagined reward")
    return Rollouts(observations, actions, rewards, ends)
