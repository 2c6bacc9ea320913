"""What all trust-region updates share: the length of a natural-gradient step, and the line search along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.algorithms.conjugate_gradient import conjugate_gradient
from mbrl_async.types import Metrics, require_finite


class Objective(Protocol):
    """What is to be gained by leaving the old parameters (P,), and how far from the old policy that leads."""

    @property
    def start(self) -> Tensor:
        """The old parameters, (P,)."""

    def surrogate_and_gradient(self) -> tuple[float, Tensor]:
        """The surrogate and its gradient (P,), at the start."""

    def curvature(self, damping: float) -> Callable[[Tensor], Tensor]:
        """Products with the Hessian (P, P) of the mean KL at the start, `damping` added to its diagonal."""

    def surrogate_and_kl(self, parameters: Tensor) -> tuple[float, float]:
        """The surrogate at other parameters (P,), and the mean KL(old || new)."""


@dataclass(frozen=True)
class Maximum:
    """Where a trust-region update ended."""

    parameters: Tensor  # (P,), those at the start if no try was accepted
    accepted: bool
    metrics: Metrics


class TrustRegion:
    """A natural-gradient step, as long as the mean KL(old || new) allows (Schulman et al. 2015, arXiv:1502.05477).

    Args:
        step_size: delta, the largest mean KL of one update.
        conjugate_gradient_iterations: products with the curvature that are spent on the direction.
        curvature_interval: every so manieth sample takes part in the curvature; 1: all. The line search checks what it
            accepts on all (appendix C).
        damping: added to the curvature's diagonal.
        backtrack_ratio: each try is this much shorter than the last.
        backtracks: tries before the update is given up.
    """

    def __init__(
        self,
        *,
        step_size: PositiveFloat,
        conjugate_gradient_iterations: PositiveInt,
        curvature_interval: PositiveInt,
        damping: Annotated[float, Field(ge=0)],
        backtrack_ratio: Annotated[float, Field(gt=0, lt=1)],
        backtracks: PositiveInt,
    ) -> None:
        self.curvature_interval = curvature_interval
        self._step_size = step_size
        self._iterations = conjugate_gradient_iterations
        self._damping = damping
        self._backtrack_ratio = backtrack_ratio
        self._backtracks = backtracks

    def maximise(self, objective: Objective) -> Maximum:
        """The first try that gains and stays in the trust region.

        Raises:
            NonFiniteError: the gradient is not finite.
        """
        surrogate, gradient = objective.surrogate_and_gradient()
        require_finite(gradient, "The policy gradient")
        step = self._step(objective, gradient)  # (P,)
        maximum = self._line_search(objective, surrogate, step)
        return replace(maximum, metrics=maximum.metrics | {"gradient_norm": float(gradient.norm())})

    def _step(self, objective: Objective, gradient: Tensor) -> Tensor:
        """The full step (P,): the natural gradient, at the length where KL is step_size to second order."""
        natural_gradient = conjugate_gradient(objective.curvature(self._damping), gradient, self._iterations)  # (P,)
        # KL = x' F x / 2, and conjugate gradients leave x' F x = x . gradient; 0 only where the gradient is.
        curvature = (natural_gradient @ gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
        return natural_gradient * torch.sqrt(2 * self._step_size / curvature)

    def _line_search(self, objective: Objective, surrogate: float, step: Tensor) -> Maximum:
        """Take the longest of the tried steps that gains and stays in the trust region, or none."""
        for backtracks in range(self._backtracks):
            parameters = objective.start + self._backtrack_ratio**backtracks * step
            new_surrogate, kl = objective.surrogate_and_kl(parameters)
            gain = new_surrogate - surrogate
            if gain > 0 and kl <= self._step_size:
                return Maximum(parameters, True, _metrics(kl, gain, True, backtracks))
        return Maximum(objective.start, False, _metrics(0.0, 0.0, False, self._backtracks))


def _metrics(kl: float, gain: float, accepted: bool, backtracks: int) -> Metrics:
    return {
        "kl": kl,
        "surrogate_gain": gain,
        "line_search_accepted": float(accepted),
        "line_search_backtracks": float(backtracks),
    }
