"""A user's own reward and termination for one of Gymnasium's tasks: swing a car out of a valley.

The functions are batched: observations (..., 2), executed actions (..., 1) in [-1, 1], next observations (..., 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

GRAVITY = 0.0025
"""Of Gymnasium's car: its acceleration is -0.0025 cos(3 position), plus what the action adds."""
GOAL = 0.45
"""The position where the car is out of the valley."""


def reward(observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
    """A thousand times the mechanical energy that the step gained, less a small cost of acting."""
    return 1000 * (_energy(next_observations) - _energy(observations)) - 0.01 * actions[..., 0].square()


def termination(_observations: Tensor, _actions: Tensor, next_observations: Tensor) -> Tensor:
    """The car is out."""
    return next_observations[..., 0] >= GOAL


def _energy(observations: Tensor) -> Tensor:
    """Of the car's height and speed; it needs about 0.001 more than it starts with."""
    position, velocity = observations.unbind(-1)
    return GRAVITY / 3 * torch.sin(3 * position) + 0.5 * velocity.square()
