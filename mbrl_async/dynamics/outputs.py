"""What the numbers of a network's last layer mean: a point, or a Gaussian.

Both give their slopes by hand, as `mlp` does. Shape letters beside those of `mlp`: D quantities that are predicted, W
numbers of the last layer, K numbers that a member learns beside its layers.
"""

from __future__ import annotations

import math
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor


class Output(Protocol):
    """How far outputs are from what they should be, and what they say may happen."""

    def width(self, quantities: int) -> int:
        """W: the numbers of the last layer that predict D quantities."""

    def initial_extras(self, quantities: int) -> Tensor:
        """What a member learns beside its layers, (K,), at the start; K may be 0."""

    def loss(self, outputs: Tensor, extras: Tensor, targets: Tensor) -> Tensor:
        """Mean over batch and quantities of each member (M,), from (M, B, W), (M, K), (M, B, D); uses up outputs."""

    def loss_and_slope(
        self, outputs: Tensor, extras: Tensor, targets: Tensor, extras_gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss (M,), and its gradient with respect to the outputs (M, B, W); uses up the outputs.

        The gradient with respect to the extras goes into `extras_gradient` (M, K).
        """

    def sample(self, outputs: Tensor, extras: Tensor, generator: torch.Generator) -> Tensor:
        """Predicted quantities (M, B, D), drawn with the generator where there is anything to draw."""


class Point:
    """The outputs are the prediction; the loss is the mean squared error."""

    def width(self, quantities: int) -> int:
        """One number a quantity."""
        return quantities

    def initial_extras(self, _quantities: int, /) -> Tensor:
        """None."""
        return torch.empty(0)

    def loss(self, outputs: Tensor, _extras: Tensor, targets: Tensor, /) -> Tensor:
        """See `Output.loss`."""
        return outputs.sub_(targets).square_().mean(dim=(1, 2))

    def loss_and_slope(
        self, outputs: Tensor, _extras: Tensor, targets: Tensor, _extras_gradient: Tensor, /
    ) -> tuple[Tensor, Tensor]:
        """See `Output.loss_and_slope`."""
        error = outputs.sub_(targets)  # (M, B, D)
        loss = error.square().mean(dim=(1, 2))
        return loss, error.mul_(2 / (error.shape[1] * error.shape[2]))

    def sample(self, outputs: Tensor, _extras: Tensor, _generator: torch.Generator, /) -> Tensor:
        """The outputs: nothing is left to chance."""
        return outputs


class Gaussian:
    """Each quantity is normal, with mean and log variance from the network (Chua et al. 2018, arXiv:1805.12114, §4).

    The loss is the negative log-likelihood, in nats a quantity; it may be negative. The log variance is bounded softly
    from both sides, by bounds that are learned a quantity (appendix A.1 there): without them it is free to explode, or
    to vanish, where there is no data. The first W / 2 outputs are means, the others raw log variances.
    """

    def __init__(
        self,
        *,
        minimum_log_variance: float,
        maximum_log_variance: float,
        bound_penalty: Annotated[float, Field(ge=0)],
    ) -> None:
        """Say where the bounds start.

        Args:
            minimum_log_variance: of a normalised quantity.
            maximum_log_variance: of a normalised quantity.
            bound_penalty: weight, in the gradient, of the distance between the bounds, summed over quantities.

        Raises:
            ValueError: the bounds are in the wrong order.
        """
        if minimum_log_variance >= maximum_log_variance:
            raise ValueError(
                f"minimum_log_variance={minimum_log_variance} is not below "
                f"maximum_log_variance={maximum_log_variance}: lower the former."
            )
        self._bounds = (minimum_log_variance, maximum_log_variance)
        self._bound_penalty = bound_penalty

    def width(self, quantities: int) -> int:
        """Mean and log variance of every quantity."""
        return 2 * quantities

    def initial_extras(self, quantities: int) -> Tensor:
        """Lower bounds, then upper bounds: (2 D,)."""
        return torch.tensor(self._bounds).repeat_interleave(quantities)

    def loss(self, outputs: Tensor, extras: Tensor, targets: Tensor) -> Tensor:
        """See `Output.loss`; the penalty is not in it."""
        mean, raw = outputs.chunk(2, dim=2)  # (M, B, D), (M, B, D)
        log_variance, _ = _bounded(raw, extras)
        squares = (mean - targets).square_().mul_(torch.exp(-log_variance))  # (M, B, D)
        return _negative_log_likelihood(squares, log_variance)

    def loss_and_slope(
        self, outputs: Tensor, extras: Tensor, targets: Tensor, extras_gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Output.loss_and_slope`; the penalty is in the gradient of the extras, not in the loss."""
        mean, raw = outputs.chunk(2, dim=2)  # (M, B, D), (M, B, D)
        log_variance, below_upper = _bounded(raw, extras)
        lower, upper = extras[:, None].chunk(2, dim=2)  # (M, 1, D), (M, 1, D)
        precision = torch.exp(-log_variance)
        error = mean - targets
        squares = error.square().mul_(precision)
        loss = _negative_log_likelihood(squares, log_variance)
        terms = error.shape[1] * error.shape[2]
        slope = (1 - squares).mul_(0.5 / terms)  # of the loss, with respect to the log variance: (M, B, D)
        # The chain rule through both soft bounds: softplus' derivative is the logistic function.
        to_upper_bounded = slope * torch.sigmoid(below_upper - lower)
        to_raw = to_upper_bounded * torch.sigmoid(upper - raw)
        to_lower, to_upper = extras_gradient.chunk(2, dim=1)  # (M, D), (M, D)
        torch.sum(slope - to_upper_bounded, dim=1, out=to_lower).sub_(self._bound_penalty)
        torch.sum(to_upper_bounded - to_raw, dim=1, out=to_upper).add_(self._bound_penalty)
        return loss, torch.cat((error.mul_(precision).div_(terms), to_raw), dim=2)

    def sample(self, outputs: Tensor, extras: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of every quantity."""
        mean, raw = outputs.chunk(2, dim=2)  # (M, B, D), (M, B, D)
        log_variance, _ = _bounded(raw, extras)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)
        return mean + noise.to(mean.device).mul_(log_variance.mul_(0.5).exp_())


def _bounded(raw: Tensor, extras: Tensor) -> tuple[Tensor, Tensor]:
    """Log variances between their bounds, and on the way there below the upper ones alone: both (M, B, D)."""
    lower, upper = extras[:, None].chunk(2, dim=2)  # (M, 1, D), (M, 1, D)
    below_upper = upper - _softplus(upper - raw)
    return lower + _softplus(below_upper - lower), below_upper


def _softplus(value: Tensor) -> Tensor:
    """log(1 + exp(value)); torch's own is cut off beyond 20, where its derivative would not be ours."""
    return torch.logaddexp(value, torch.zeros((), dtype=value.dtype, device=value.device))


def _negative_log_likelihood(squares: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over batch and quantities (M,), from squared standardised errors (M, B, D)."""
    return 0.5 * (squares + log_variance).mean(dim=(1, 2)) + 0.5 * math.log(2 * math.pi)
