"""Zero mean and unit variance, for each member by its own data."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 4 * torch.finfo(torch.float32).eps
"""A dimension whose standard deviation is no greater than this share of its mean is constant."""


class Normaliser(torch.nn.Module):
    """Mean and population standard deviation of one quantity of size D; the identity until it is fitted.

    A dimension that is constant in the data stays what it is: whatever is normalised becomes 0 there, and whatever is
    restored becomes the constant. A network's output for it would be noise, which imagination feeds back into an input
    whose weights no data has ever trained.
    """

    mean: Tensor  # (M, 1, D)
    std: Tensor  # (M, 1, D), 0 where the data is constant

    def __init__(self, *, members: int, size: int, minimum_std: float, device: torch.device | str) -> None:
        """A dimension that hardly varies is divided by `minimum_std` (in its own unit): noise must not explode."""
        super().__init__()
        self._minimum_std = minimum_std
        self.register_buffer("mean", torch.zeros(members, 1, size, device=device))
        self.register_buffer("std", torch.ones(members, 1, size, device=device))

    def fit(self, rows: Tensor) -> None:
        """Take mean and standard deviation from rows (M, N, D)."""
        std, mean = torch.std_mean(rows, dim=1, correction=0, keepdim=True)
        self.mean.copy_(mean)
        constant = std <= ROUNDING * mean.abs()
        self.std.copy_(std.clamp_min_(self._minimum_std).masked_fill_(constant, 0))

    def normalise(self, rows: Tensor) -> Tensor:
        """From the quantity's unit to zero mean and unit variance; rows (M, N, D)."""
        return (rows - self.mean).div_(self.std.masked_fill(self.std == 0, torch.inf))

    def restore(self, rows: Tensor) -> Tensor:
        """The inverse of `normalise`; rows (M, N, D)."""
        return (rows * self.std).add_(self.mean)
