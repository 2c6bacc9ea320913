"""What the numbers of a network's last layer mean.

Slopes are written by hand, as in `mlp`. Shape letters beside those of `mlp`: D quantities that are predicted, W
numbers of the last layer, K numbers that a member learns beside its layers.
"""

from __future__ import annotations

from typing import Protocol

import torch
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
