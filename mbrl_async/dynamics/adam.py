"""Adam for many members at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

# The usual constants (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1).
FIRST_MOMENT_DECAY = 0.9
SECOND_MOMENT_DECAY = 0.999
EPSILON = 1e-8


@dataclass(frozen=True)
class MemberwiseAdam:
    """Parameters of M members, each with moments and a step count of its own; `step` changes them in place.

    torch's optimiser class would have one parameter a member too, but lends nobody a copy of some members: with
    one, an epoch that is given up halfway leaves no trace.
    """

    parameters: Tensor  # (M, P)
    first_moment: Tensor  # (M, P)
    second_moment: Tensor  # (M, P)
    steps: Tensor  # (M,)
    learning_rate: float

    @classmethod
    def start(cls, parameters: Tensor, learning_rate: float) -> MemberwiseAdam:
        """Optimise these parameters (M, P), in place, from moments of zero."""
        zeros = torch.zeros_like(parameters)
        return cls(parameters, zeros, zeros.clone(), zeros.new_zeros(len(parameters)), learning_rate)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Everything that a step changes, a row a member."""
        return self.parameters, self.first_moment, self.second_moment, self.steps

    def copy_of(self, members: Tensor) -> MemberwiseAdam:
        """A copy of some members, given by their indices (K,)."""
        parameters, first_moment, second_moment, steps = (tensor.index_select(0, members) for tensor in self.tensors)
        return MemberwiseAdam(parameters, first_moment, second_moment, steps, self.learning_rate)

    def take_over(self, members: Tensor, copy: MemberwiseAdam) -> None:
        """Make these members (K,) what they are in the copy."""
        for tensor, copied in zip(self.tensors, copy.tensors, strict=True):
            tensor.index_copy_(0, members, copied)

    def step(self, gradient: Tensor) -> None:
        """Descend along the gradient (M, P)."""
        adam(
            list(self.parameters),
            list(gradient),
            list(self.first_moment),
            list(self.second_moment),
            [],  # maxima of the second moment, which only AMSGrad keeps
            list(self.steps),
            fused=True,
            amsgrad=False,
            beta1=FIRST_MOMENT_DECAY,
            beta2=SECOND_MOMENT_DECAY,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
