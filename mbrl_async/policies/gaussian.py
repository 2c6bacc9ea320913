"""Diagonal Gaussians over actions, with the state-independent spread that policy-gradient methods use."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """One normal distribution a row of `mean`; all rows of a policy share `log_std`.

    J policies side by side have a mean (J, B, A) and a log_std (J, 1, A).
    """

    mean: Tensor  # (..., A)
    log_std: Tensor  # (A,), or whatever broadcasts with the mean

    def sample(self, noise: Tensor) -> Tensor:
        """The actions that standard normal `noise` (..., A) stands for."""
        return self.mean + self.log_std.exp() * noise  # (..., A)

    def log_probability(self, actions: Tensor) -> Tensor:
        """Log density of `actions` (..., A), summed over their dimensions: (...)."""
        standardised = (actions - self.mean) * torch.exp(-self.log_std)  # (..., A)
        constant = self.log_std.sum(-1) + 0.5 * math.log(2 * math.pi) * self.log_std.shape[-1]
        return -0.5 * standardised.square().sum(-1) - constant  # (...)

    def kl_from(self, old: Gaussian) -> Tensor:
        """KL(old || self) of each row: (...)."""
        variances = (2 * old.log_std).exp() + (old.mean - self.mean).square()  # (..., A)
        kl = self.log_std - old.log_std + 0.5 * variances * torch.exp(-2 * self.log_std) - 0.5  # (..., A)
        return kl.sum(-1)  # (...)

    def detach(self) -> Gaussian:
        """The same distribution as constants for differentiation."""
        return Gaussian(self.mean.detach(), self.log_std.detach())
