"""Acting by planning: the best sequence of actions in the newest model, of which the first action is executed.

Model-predictive control with an ensemble (PETS: Chua et al. 2018, arXiv:1805.12114). Shape letters besides those of
`mbrl_async.types`: H steps of a plan, K candidates compared at once, P particles a candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Protocol

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.algorithms.imagination import (
    ImaginedTask,
    Model,
    draw_partitions,
    predict_in_shares,
    require_equal_shares,
    roll_out,
)

Evaluation = Callable[[Tensor], Tensor]
"""Candidates (H, K, A) within [-1, 1] -> what each is expected to earn, (K,)."""


class PlanSearch(Protocol):
    """A method to search for good plans."""

    @property
    def candidates(self) -> int:
        """K."""

    def search(self, evaluate: Evaluation, guess: Tensor, generator: torch.Generator) -> Tensor:
        """A plan (H, A) within [-1, 1].

        Args:
            evaluate: called with K candidates at a time.
            guess: a plan (H, A) that may be near; zeros where nothing is known.
            generator: draws the candidates.
        """


class RandomShooting:
    """The best of uniformly random plans.

    Args:
        candidates: K.
    """

    def __init__(self, *, candidates: PositiveInt) -> None:
        self.candidates = candidates

    def search(self, evaluate: Evaluation, guess: Tensor, generator: torch.Generator) -> Tensor:
        """See `PlanSearch`; of the guess, only its shape is used."""
        horizon, size = guess.shape
        plans = torch.rand(horizon, self.candidates, size, generator=generator, device=generator.device) * 2 - 1
        plans = plans.to(guess.device)
        return plans[:, evaluate(plans).argmax()]


class CrossEntropyMethod:
    """Draws plans from a Gaussian, fits it to the best of them, and again (Botev et al. 2013; PETS, §5).

    Begins around the guess, and returns the last Gaussian's mean.

    Args:
        candidates: K, drawn in each iteration.
        iterations: how often the Gaussian is fitted.
        elite_share: which share of the candidates it is fitted to; two of them at least.
        initial_std: of every action, before the first fit.
    """

    def __init__(
        self,
        *,
        candidates: PositiveInt,
        iterations: PositiveInt,
        elite_share: Annotated[float, Field(gt=0, le=1)],
        initial_std: PositiveFloat,
    ) -> None:
        self.candidates = candidates
        self._iterations = iterations
        self._elites = round(candidates * elite_share)
        self._initial_std = initial_std
        if self._elites < 2:
            raise ValueError(
                f"elite_share={elite_share} of candidates={candidates} leaves {self._elites} elites, "
                "which have no spread: give a larger share or more candidates."
            )

    def search(self, evaluate: Evaluation, guess: Tensor, generator: torch.Generator) -> Tensor:
        """See `PlanSearch`."""
        mean, std = guess, torch.full_like(guess, self._initial_std)  # (H, A)
        for _ in range(self._iterations):
            noise = torch.randn(len(mean), self.candidates, mean.shape[1], generator=generator, device=generator.device)
            plans = (mean[:, None] + std[:, None] * noise.to(mean.device)).clamp_(-1.0, 1.0)  # (H, K, A)
            elites = plans[:, evaluate(plans).topk(self._elites).indices]  # (H, elites, A)
            std, mean = torch.std_mean(elites, dim=1, correction=0)
        return mean


class Planner:
    """Searches for the plan that earns most in the model within its horizon.

    Every candidate is played by P particles; in each step, a fresh random partition gives every member of the ensemble
    an equal share of all particles (PETS calls this trajectory sampling TS1), as in the imagination of policies. What
    a candidate is worth is the mean over its particles.

    Args:
        search: the method.
        horizon: H.
        particles: P: with more of them than one, a plan that only an optimistic member likes does not win.
    """

    def __init__(self, *, search: PlanSearch, horizon: PositiveInt, particles: PositiveInt) -> None:
        self._search = search
        self._horizon = horizon
        self._particles = particles

    def require_compatible(self, members: int) -> None:
        """Refuse, before a run starts, an ensemble that cannot share the particles equally.

        Raises:
            ValueError: candidates x particles is not a multiple of the members.
        """
        require_equal_shares(self._search.candidates * self._particles, members, "candidates x particles")

    def first_guess(self, action_size: int) -> Tensor:
        """For the first plan of a trajectory: zeros (H, A)."""
        return torch.zeros(self._horizon, action_size)

    @torch.no_grad()
    def plan(
        self, model: Model, task: ImaginedTask, observation: Tensor, guess: Tensor, generator: torch.Generator
    ) -> Tensor:
        """A plan (H, A) within [-1, 1] from the observation (O,), searched for from the guess (H, A).

        Raises:
            NonFiniteError: a predicted observation or reward is not finite.
        """
        particles = self._search.candidates * self._particles
        starts = observation.expand(particles, -1)  # (K P, O)

        def evaluate(plans: Tensor) -> Tensor:
            actions = plans.repeat_interleave(self._particles, dim=1)  # (H, K P, A)
            partitions = draw_partitions(particles, len(plans), generator, starts.device)
            predict = predict_in_shares(model, partitions, generator)
            rollouts = roll_out(_open_loop, predict, task, starts, actions, _uninterrupted)
            return rollouts.undiscounted_returns.view(-1, self._particles).mean(dim=1)  # (K,)

        return self._search.search(evaluate, guess, generator)


def shifted(plan: Tensor) -> Tensor:
    """What is left of a plan (H, A) after its first action, with zeros in the last place."""
    return torch.cat((plan[1:], torch.zeros_like(plan[:1])))


def _open_loop(observations: Tensor) -> Tensor:
    """A plan follows whatever is observed: it is a deviation from nothing."""
    return observations.new_zeros(())


def _uninterrupted() -> None:
    """Planning is short: the collector looks for the end of the run in every control step."""
