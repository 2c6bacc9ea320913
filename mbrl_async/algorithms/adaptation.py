"""The inner step of meta-learning: every task's policy takes one gradient step of its own from common parameters.

Shape letters besides those of `types.py`: J tasks, N samples of a task, P parameters of a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mbrl_async.algorithms.imagination import Rollouts
from mbrl_async.policies.stack import PolicyStack

ROWS = 1000
"""Samples of a task that are computed at once: a differentiated gradient of the paper's 20 tasks then takes 340 MB less
than with all 4000 at once, in about the same time, and a run can end in between."""


@dataclass(frozen=True)
class Samples:
    """N samples of each of J tasks."""

    observations: Tensor  # (J, N, O)
    actions: Tensor  # (J, N, A), as sampled
    advantages: Tensor  # (J, N)
    weights: Tensor  # (J, N), in the mean over a task; over all pieces of a task's samples their sum is 1


def split(rollouts: Rollouts, advantages: Tensor, rows: int = ROWS) -> list[Samples]:
    """All samples of (T, J, R) rollouts and advantages, in pieces of whole time steps, of about `rows` a task."""
    horizon, _, count = advantages.shape
    steps = max(1, rows // count)
    return [_steps(rollouts, advantages, slice(first, first + steps)) for first in range(0, horizon, steps)]


def thin(rollouts: Rollouts, advantages: Tensor, interval: int) -> Samples:
    """The samples of every `interval`-th time step, which stand for all of them.

    The interval is for rollouts that reach the horizon. Of those that end early steps are taken more often, in
    proportion to their mean length, so that about as many samples remain.
    """
    reached = float(rollouts.ends.lengths.double().mean()) / len(advantages)
    samples = _happened(_steps(rollouts, advantages, slice(None, None, max(1, round(interval * reached)))))
    return replace(samples, weights=samples.weights / samples.weights.sum(1, keepdim=True))


def _happened(samples: Samples) -> Samples:
    """Those that count, and as many that do not as make all tasks alike, behind them."""
    counts = samples.weights > 0  # (J, N)
    order = counts.logical_not().sort(dim=1, stable=True).indices[:, : int(counts.sum(1).max())]  # (J, n)
    tasks = torch.arange(len(order), device=order.device)[:, None]
    return Samples(*(getattr(samples, field.name)[tasks, order] for field in fields(samples)))


def _steps(rollouts: Rollouts, advantages: Tensor, steps: slice) -> Samples:
    observations, actions = rollouts.observations[:-1][steps], rollouts.actions[steps]  # (t, J, R, ...)
    happened = rollouts.ends.happened(len(advantages)).to(advantages.dtype)  # (T, J, R)
    weights = happened / happened.sum((0, 2), keepdim=True)  # (T, J, R)
    parts = (observations, actions, advantages[steps], weights[steps])
    return Samples(*(part.transpose(0, 1).flatten(1, 2) for part in parts))


class Adaptation:
    """theta'_j = theta - rate * gradient of L_j(theta), L_j = mean of -log pi_theta(a|s) A over task j.

    Args:
        stack: the policies' shape.
        samples: of theta in each task, in pieces.
        rate: alpha, of the one gradient step.
        check_interrupted: called for every piece; may raise `Interrupted`.
    """

    def __init__(
        self, stack: PolicyStack, samples: Sequence[Samples], rate: float, check_interrupted: Callable[[], None]
    ) -> None:
        self._stack = stack
        self._samples = samples
        self._rate = rate
        self._check_interrupted = check_interrupted

    @property
    def rate(self) -> float:
        """The length of the step, alpha."""
        return self._rate

    def adapted(self, parameters: Tensor) -> Tensor:
        """The adapted parameters of all tasks, (J, P), from common ones (P,)."""
        rows = rows_of(parameters, len(self._samples[0].observations))
        gradient = torch.zeros_like(rows)
        for samples in self._samples:
            self._check_interrupted()
            gradient += inner_gradient(self._stack, rows.requires_grad_(), samples)
        return rows.detach() - self._rate * gradient

    def pull_back(self, parameters: Tensor, cotangents: Tensor) -> Tensor:
        """The gradient (P,) with respect to the common parameters, from one (J, P) to the adapted ones.

        The Jacobian I - alpha H_j is symmetric, H_j the Hessian of L_j: one product with H_j each.
        """
        products = torch.zeros_like(cotangents)
        for samples in self._samples:
            self._check_interrupted()
            products += HessianProduct(self._stack, parameters, samples)(cotangents)
        return (cotangents - self._rate * products).sum(0)


class HessianProduct:
    """Maps v (J, P) to H_j v_j (J, P), H_j the Hessian of L_j at common parameters (P,), exactly."""

    def __init__(self, stack: PolicyStack, parameters: Tensor, samples: Samples) -> None:
        self._rows = rows_of(parameters, len(samples.observations)).requires_grad_()
        self._gradient = inner_gradient(stack, self._rows, samples, create_graph=True)

    def __call__(self, vectors: Tensor) -> Tensor:
        """The products, (J, P)."""
        return torch.autograd.grad(self._gradient, self._rows, vectors, retain_graph=True)[0]


def rows_of(parameters: Tensor, tasks: int) -> Tensor:
    """The same parameters (P,) for each task, (J, P), as a new tensor."""
    return parameters.expand(tasks, -1).clone()


def inner_gradient(stack: PolicyStack, rows: Tensor, samples: Samples, create_graph: bool = False) -> Tensor:
    """The gradients (J, P) of L_j, as far as these samples make it, at each task's own parameters (J, P)."""
    log_probabilities = stack.distribution(rows, samples.observations).log_probability(samples.actions)  # (J, N)
    losses = -(log_probabilities * samples.advantages * samples.weights).sum(1)  # (J,)
    return torch.autograd.grad(losses.sum(), rows, create_graph=create_graph)[0]
