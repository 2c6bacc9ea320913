"""From rewards to advantages: discounted returns, a baseline, generalised advantage estimation."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

SMALLEST_STD = 1e-8

Bootstrap = Literal["zero", "value"]


class Baseline(Protocol):
    """What `AdvantageEstimator` needs of a value function."""

    def fit_predict(self, observations: Tensor, returns: Tensor, continuation: Tensor) -> Tensor:
        """Values (T + 1, ..., R), a new tensor, with V(s_t) = returns_t + continuation_t V(s_T), fitted for each task.

        Observations (T + 1, ..., R, O), returns (T, ..., R), continuation (T,).
        """


class AdvantageEstimator:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438) with a freshly fitted baseline.

    Args:
        discount: gamma, a step.
        gae_lambda: 0 trusts the baseline after one step, 1 trusts the rewards to the end.
        bootstrap: what the time limit is worth: "zero" (the end of the task, as the authors have it), or the "value"
            of the last observation (the task would go on).
        baseline: fitted on each batch before it predicts on that batch.
    """

    def __init__(
        self,
        *,
        discount: Annotated[float, Field(ge=0, le=1)],
        gae_lambda: Annotated[float, Field(ge=0, le=1)],
        bootstrap: Bootstrap,
        baseline: Baseline,
    ) -> None:
        if bootstrap == "value" and discount == 1:
            raise ValueError('bootstrap="value" needs discount < 1, or the value that goes on has no bound; got 1.')
        self._discount = discount
        self._gae_lambda = gae_lambda
        self._bootstrap = bootstrap
        self._baseline = baseline

    def estimate(self, observations: Tensor, rewards: Tensor) -> Tensor:
        """Advantages (T, ..., R), with mean 0 and standard deviation 1 over the batch of each task.

        Args:
            observations: (T + 1, ..., R, O); the dimensions in between count tasks, each with a baseline of its own.
            rewards: (T, ..., R).

        Raises:
            ValueError: the shapes do not belong together.
            NonFiniteError: an observation or a return is not finite.
        """
        horizon, *rollouts = rewards.shape
        if observations.shape[:-1] != (horizon + 1, *rollouts):
            expected = ", ".join(map(str, (horizon + 1, *rollouts)))
            raise ValueError(
                f"observations {tuple(observations.shape)} do not fit rewards {tuple(rewards.shape)}: "
                f"give ({expected}, O), one observation more than rewards."
            )
        returns = discounted_sums(rewards, self._discount)  # (T, ..., R)
        values = self._baseline.fit_predict(observations, returns, self._continuation(rewards))  # (T + 1, ..., R)
        if self._bootstrap == "zero":
            values[-1] = 0.0
        return normalise(generalised_advantages(rewards, values, self._discount, self._gae_lambda))

    def _continuation(self, rewards: Tensor) -> Tensor:
        """Weight (T,) of the last observation's value in the return of each step."""
        if self._bootstrap == "zero":
            return rewards.new_zeros(len(rewards))
        steps_left = torch.arange(len(rewards), 0, -1, dtype=rewards.dtype, device=rewards.device)
        return self._discount**steps_left


def discounted_sums(terms: Tensor, factor: float) -> Tensor:
    """Row t: sum over k >= t of factor^(k - t) terms[k]; (T, ...) -> (T, ...)."""
    steps = torch.arange(len(terms), device=terms.device)
    distance = (steps[None, :] - steps[:, None]).clamp(min=0)  # (T, T)
    # One matrix product: a loop over T holds the interpreter, which a collecting thread shares, far longer.
    weights = torch.triu(torch.tensor(factor, dtype=terms.dtype, device=terms.device) ** distance)  # (T, T)
    return (weights @ terms.flatten(1)).view_as(terms)


def generalised_advantages(rewards: Tensor, values: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """GAE(discount, gae_lambda), equation 16 of arXiv:1506.02438.

    Args:
        rewards: (T, ..., R).
        values: (T + 1, ..., R); the last row is what the time limit is worth.
        discount: gamma, a step.
        gae_lambda: how much each later temporal-difference error counts, against the one before it.
    """
    errors = rewards + discount * values[1:] - values[:-1]  # (T, ..., R)
    return discounted_sums(errors, discount * gae_lambda)


def normalise(advantages: Tensor) -> Tensor:
    """Shift and scale each task's batch, (T, ..., R), to mean 0 and standard deviation 1; equal advantages become 0."""
    batch = (0, -1)
    centred = advantages - advantages.mean(batch, keepdim=True)
    return centred / (centred.std(batch, correction=0, keepdim=True) + SMALLEST_STD)
