"""From rewards to advantages: discounted returns, a baseline, generalised advantage estimation."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from mbrl_async.types import RolloutEnds

SMALLEST_STD = 1e-8

Bootstrap = Literal["zero", "value"]


class Baseline(Protocol):
    """What `AdvantageEstimator` needs of a value function."""

    def fit_predict(self, observations: Tensor, returns: Tensor, continuation: Tensor, ends: RolloutEnds) -> Tensor:
        """Values (T + 1, ..., R) with V(s_t) = returns_t + continuation_t V(s_end), fitted for each task.

        They mean nothing behind the ends. Observations (T + 1, ..., R, O), returns and continuation (T, ..., R).
        """


class AdvantageEstimator:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438) with a freshly fitted baseline.

    Args:
        discount: gamma, a step.
        gae_lambda: 0 trusts the baseline after one step, 1 trusts the rewards to the end.
        bootstrap: what the time limit, or a cut before it, is worth: "zero" (the end of the task, as the authors have
            it), or the "value" of the last observation (the task would go on). A termination is always worth 0.
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

    def estimate(self, observations: Tensor, rewards: Tensor, ends: RolloutEnds) -> Tensor:
        """Advantages (T, ..., R), with mean 0 and standard deviation 1 over the steps of each task; 0 behind the ends.

        Args:
            observations: (T + 1, ..., R, O); the dimensions in between count tasks, each with a baseline of its own.
            rewards: (T, ..., R), 0 behind the ends.
            ends: where the rollouts ended.

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
        values = self._baseline.fit_predict(observations, returns, self._continuation(rewards, ends), ends)
        happened = ends.happened(horizon)  # (T, ..., R)
        # What follows the end is put into the last reward: then no value at the end or behind it counts.
        following = self._discount * torch.where(self._goes_on(ends), _at(ends.lengths, values), 0.0)  # (..., R)
        rewards = rewards.scatter_add(0, ends.lengths[None] - 1, following[None])
        values = torch.where(torch.cat((happened, torch.zeros_like(happened[:1]))), values, 0.0)  # (T + 1, ..., R)
        return normalise(generalised_advantages(rewards, values, self._discount, self._gae_lambda), happened)

    def _goes_on(self, ends: RolloutEnds) -> Tensor:
        """Whether what would follow each rollout counts: bool (..., R)."""
        return ~ends.terminated if self._bootstrap == "value" else torch.zeros_like(ends.terminated)

    def _continuation(self, rewards: Tensor, ends: RolloutEnds) -> Tensor:
        """Weight (T, ..., R) of the last observation's value in the return of each step that happened."""
        happened = ends.happened(len(rewards)).to(rewards.dtype)  # (T, ..., R)
        steps_left = happened.flip(0).cumsum(0).flip(0)
        return self._discount**steps_left * self._goes_on(ends)


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


def normalise(advantages: Tensor, happened: Tensor) -> Tensor:
    """Shift and scale the steps of each task that happened to mean 0 and standard deviation 1; the others become 0.

    Equal advantages become 0, too: their mean is exact in double precision. Both arguments are (T, ..., R).
    """
    batch = (0, -1)
    exact = advantages.double()
    number = happened.sum(batch, keepdim=True)
    mean = torch.where(happened, exact, 0.0).sum(batch, keepdim=True) / number
    centred = torch.where(happened, exact - mean, 0.0)
    std = (centred.square().sum(batch, keepdim=True) / number).sqrt()
    return (centred / (std + SMALLEST_STD)).to(advantages.dtype)


def _at(steps: Tensor, values: Tensor) -> Tensor:
    """The values (T + 1, ..., R) at one step (..., R) of each rollout: (..., R)."""
    return values.gather(0, steps[None])[0]
