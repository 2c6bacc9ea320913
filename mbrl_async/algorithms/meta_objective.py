"""The outer objective of meta-learning: what common parameters are worth after every task has adapted them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mbrl_async.algorithms.adaptation import Adaptation, HessianProduct, Samples
from mbrl_async.algorithms.batch import probability_ratio
from mbrl_async.algorithms.fisher import FisherProduct
from mbrl_async.policies.gaussian import Gaussian
from mbrl_async.policies.stack import PolicyStack


class MetaObjective:
    """The mean over tasks of the surrogate and of the KL of the adapted policies, as functions of theta (P,).

        surrogate(theta) = mean over j of E[pi_theta'_j(a|s) / pi_old'_j(a|s) * A],   theta'_j = adapted_j(theta)

    Args:
        stack: the policies' shape.
        start: theta, (P,), of which `adapted` was adapted.
        adaptation: the inner step.
        adapted: (J, P), the policies that sampled `samples`.
        samples: of the adapted policies, in pieces.
        thinned: samples before and after adaptation that the curvature is estimated from.
        check_interrupted: called for every piece; may raise `Interrupted`.
    """

    def __init__(
        self,
        *,
        stack: PolicyStack,
        start: Tensor,
        adaptation: Adaptation,
        adapted: Tensor,
        samples: Sequence[Samples],
        thinned: tuple[Samples, Samples],
        check_interrupted: Callable[[], None],
    ) -> None:
        self.start = start
        self.adapted = adapted
        """Of the parameters that were tried last."""
        self._stack = stack
        self._adaptation = adaptation
        self._old = adapted
        self._samples = samples
        self._old_distributions = [self._distribution(adapted, piece) for piece in samples]
        self._thinned = thinned
        self._check_interrupted = check_interrupted

    def surrogate_and_gradient(self) -> tuple[float, Tensor]:
        """The surrogate and its gradient (P,) at the start, through the inner step."""
        rows = self._old.clone().requires_grad_()
        surrogate, gradient = 0.0, torch.zeros_like(self._old)
        for samples, old in zip(self._samples, self._old_distributions, strict=True):
            self._check_interrupted()
            new = self._stack.distribution(rows, samples.observations)
            part = _surrogate(samples, old, new)
            surrogate += float(part.detach())
            gradient += torch.autograd.grad(part, rows)[0]
        return surrogate, self._adaptation.pull_back(self.start, gradient)

    def curvature(self, damping: float) -> Callable[[Tensor], Tensor]:
        """Products with the mean over tasks of J_j' F_j J_j + damping I.

        J_j = I - alpha H_j is the Jacobian of the inner step, F_j the Fisher matrix of the adapted policy. That is
        the Hessian of the mean KL, which has no slope at the start; all three are estimated from the thinned samples.
        """
        before, after = self._thinned
        rate = self._adaptation.rate
        rows = self._old.clone().requires_grad_()
        hessian = HessianProduct(self._stack, self.start, before)
        distribution = self._stack.distribution(rows, after.observations)
        fisher = FisherProduct(distribution, [rows], 0.0, after.weights / len(rows))

        def product(vector: Tensor) -> Tensor:
            self._check_interrupted()
            vectors = vector.expand_as(rows)  # (J, P)
            moved = vectors - rate * hessian(vectors)
            curved = fisher(moved.flatten()).view_as(rows)
            return (curved - rate * hessian(curved)).sum(0) + damping * vector

        return product

    def surrogate_and_kl(self, parameters: Tensor) -> tuple[float, float]:
        """The mean surrogate and the mean KL(old || new), both after adaptation from `parameters` (P,)."""
        self.adapted = self._adaptation.adapted(parameters)
        return self._surrogate_and_kl_of(self.adapted)

    def _surrogate_and_kl_of(self, adapted: Tensor) -> tuple[float, float]:
        surrogate = kl = 0.0
        for samples, old in zip(self._samples, self._old_distributions, strict=True):
            self._check_interrupted()
            new = self._distribution(adapted, samples)
            surrogate += float(_surrogate(samples, old, new))
            kl += float(_mean_over_tasks(new.kl_from(old), samples))
        return surrogate, kl

    @torch.no_grad()
    def _distribution(self, parameters: Tensor, samples: Samples) -> Gaussian:
        return self._stack.distribution(parameters, samples.observations)


def _surrogate(samples: Samples, old: Gaussian, new: Gaussian) -> Tensor:
    """What these samples add to the surrogate."""
    return _mean_over_tasks(probability_ratio(samples.actions, old, new) * samples.advantages, samples)


def _mean_over_tasks(values: Tensor, samples: Samples) -> Tensor:
    """What values (J, N) of these samples add to the mean over tasks of the mean over each task's samples."""
    return (values * samples.weights).sum() / len(values)
