"""What the numbers of a network's last layer mean: a point, or a Gaussian.

Both give their slopes by hand, as `mlp` does. Shape letters beside those of `mlp`: D quantities that are predicted, W
numbers of the last layer, K numbers that a member learns beside its layers, G quantities that may have a spread: the
others, which come last, are signals, whose noise would only add variance to what is imagined.
"""

from __future__ import annotations

import math
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor


class Output(Protocol):
    """How far outputs are from what they should be, and what they say may happen."""

    def width(self, quantities: int, spread: int) -> int:
        """W: the numbers of the last layer that predict D quantities, of which the first G may have a spread."""

    def initial_extras(self, spread: int) -> Tensor:
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

    def width(self, quantities: int, _spread: int, /) -> int:
        """One number a quantity."""
        return quantities

    def initial_extras(self, _spread: int, /) -> Tensor:
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
    """Quantities are normal, with mean and log variance from the network (Chua et al. 2018, arXiv:1805.12114, §4).

    The loss is the negative log-likelihood, in nats a quantity; it may be negative. The log variance is bounded softly
    from both sides, by bounds that are learned a quantity (appendix A.1 there): without them it is free to explode, or
    to vanish, where there is no data. The first D outputs are means, the other G raw log variances. Signals have unit
    variance in the loss, and are never drawn: a variance learned for a number that is 0 or 1 keeps its mean from being
    learned, because where it changes the variance is large and the slope therefore small.
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

    def width(self, quantities: int, spread: int) -> int:
        """Mean of every quantity, and log variance of those with a spread."""
        return quantities + spread

    def initial_extras(self, spread: int) -> Tensor:
        """Lower bounds, then upper bounds: (2 G,)."""
        return torch.tensor(self._bounds).repeat_interleave(spread)

    def loss(self, outputs: Tensor, extras: Tensor, targets: Tensor) -> Tensor:
        """See `Output.loss`; the penalty is not in it."""
        mean, raw = _parts(outputs, extras)
        log_variance, _ = _bounded(raw, extras)
        squares = (mean - targets).square_()  # (M, B, D)
        squares[..., : raw.shape[2]].mul_(torch.exp(-log_variance))
        return _negative_log_likelihood(squares, log_variance)

    def loss_and_slope(
        self, outputs: Tensor, extras: Tensor, targets: Tensor, extras_gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Output.loss_and_slope`; the penalty is in the gradient of the extras, not in the loss."""
        mean, raw = _parts(outputs, extras)
        log_variance, below_upper = _bounded(raw, extras)
        lower, upper = extras[:, None].chunk(2, dim=2)  # (M, 1, G), (M, 1, G)
        error = mean - targets  # (M, B, D)
        terms, spread = error.shape[1] * error.shape[2], raw.shape[2]
        to_mean = error.clone()  # (M, B, D): error / variance
        to_mean[..., :spread].mul_(torch.exp(-log_variance))
        squares = error.mul_(to_mean)
        loss = _negative_log_likelihood(squares, log_variance)
        slope = (1 - squares[..., :spread]).mul_(0.5 / terms)  # with respect to the log variance: (M, B, G)
        # The chain rule through both soft bounds: softplus' derivative is the logistic function.
        to_upper_bounded = slope * torch.sigmoid(below_upper - lower)
        to_raw = to_upper_bounded * torch.sigmoid(upper - raw)
        to_lower, to_upper = extras_gradient.chunk(2, dim=1)  # (M, G), (M, G)
        torch.sum(slope - to_upper_bounded, dim=1, out=to_lower).sub_(self._bound_penalty)
        torch.sum(to_upper_bounded - to_raw, dim=1, out=to_upper).add_(self._bound_penalty)
        return loss, torch.cat((to_mean.div_(terms), to_raw), dim=2)

    def sample(self, outputs: Tensor, extras: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of every quantity with a spread; the means of the others."""
        mean, raw = _parts(outputs, extras)
        log_variance, _ = _bounded(raw, extras)
        noise = torch.randn(raw.shape, generator=generator, device=generator.device, dtype=raw.dtype).to(raw.device)
        drawn = mean.clone()
        drawn[..., : raw.shape[2]] += noise.mul_(log_variance.mul_(0.5).exp_())
        return drawn


def _parts(outputs: Tensor, extras: Tensor) -> tuple[Tensor, Tensor]:
    """Means (M, B, D) and raw log variances (M, B, G)."""
    spread = extras.shape[1] // 2
    mean, raw = outputs.tensor_split([outputs.shape[2] - spread], dim=2)
    return mean, raw


def _bounded(raw: Tensor, extras: Tensor) -> tuple[Tensor, Tensor]:
    """Log variances between their bounds, and on the way there below the upper ones alone: both (M, B, G)."""
    lower, upper = extras[:, None].chunk(2, dim=2)  # (M, 1, G), (M, 1, G)
    below_upper = upper - _softplus(upper - raw)
    return lower + _softplus(below_upper - lower), below_upper


def _softplus(value: Tensor) -> Tensor:
    """log(1 + exp(value)); torch's own is cut off beyond 20, where its derivative would not be ours."""
    return torch.logaddexp(value, torch.zeros((), dtype=value.dtype, device=value.device))


def _negative_log_likelihood(squares: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over batch and quantities (M,), from squared standardised errors (M, B, D) and log variances (M, B, G)."""
    doubled = squares.sum(dim=(1, 2)) + log_variance.sum(dim=(1, 2))
    return 0.5 * doubled / (squares.shape[1] * squares.shape[2]) + 0.5 * math.log(2 * math.pi)
