"""When a member has learned what its data holds (paper, section 4: the model-learning worker)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mbrl_async.types import State, require_finite


class EarlyStopping:
    """Stops a member when the moving average of its validation loss rises, until new data comes.

    average <- weight * average + (1 - weight) * loss; it starts above the first loss, and the average before it higher
    still, so that no member can stop on its first epoch.
    """

    def __init__(self, *, members: int, weight: Annotated[float, Field(ge=0, lt=1)]) -> None:
        """`weight`: share of the old average that each epoch keeps."""
        self._members = members
        self._weight = weight
        self.restart()

    @property
    def active(self) -> Tensor:
        """Which members still learn: bool (M,)."""
        return self._active.clone()

    def restart(self) -> None:
        """New data came: all members learn again, and their averages start anew with the next losses."""
        self._active = torch.ones(self._members, dtype=torch.bool)
        self._average = torch.full((self._members,), torch.nan)  # NaN: no epoch yet
        self._previous = torch.full((self._members,), torch.nan)

    def update(self, validation_losses: Tensor) -> None:
        """Judge the epoch that ended with these losses (M,); members that have stopped stay as they are.

        Raises:
            ValueError: not one loss a member.
            NonFiniteError: a loss is not finite.
        """
        require_finite(validation_losses, "a validation loss")
        if validation_losses.shape != (self._members,):
            raise ValueError(
                f"validation_losses has the shape {tuple(validation_losses.shape)}: "
                f"give one loss a member, ({self._members},)."
            )
        losses = validation_losses.detach().cpu()
        average = torch.where(self._average.isnan(), _enlarged(losses, 1.5), self._average)
        previous = torch.where(self._previous.isnan(), _enlarged(losses, 2.0), self._previous)
        average = self._weight * average + (1 - self._weight) * losses
        self._average = torch.where(self._active, average, self._average)
        self._previous = torch.where(self._active, average, self._previous)
        self._active &= ~(previous < average)

    def state_dict(self) -> State:
        """Everything that decides the next `update`, as a copy."""
        return {"active": self._active.clone(), "average": self._average.clone(), "previous": self._previous.clone()}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._active = state["active"].clone()
        self._average = state["average"].clone()
        self._previous = state["previous"].clone()


def _enlarged(losses: Tensor, factor: float) -> Tensor:
    """Larger by the factor, whatever the sign."""
    return torch.where(losses < 0, losses / factor, losses * factor)
