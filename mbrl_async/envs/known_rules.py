"""Batched rewards and terminations of Gymnasium's tasks, as its documentation defines them.

All take observations (..., O), executed actions (..., A) in [-1, 1], and next observations (..., O).
"""

from __future__ import annotations

import torch
from torch import Tensor

PENDULUM_TORQUE = 2.0
"""N m: what an action of 1 stands for."""
LARGEST_POLE_ANGLE = 0.2
"""rad."""


def pendulum_reward(observations: Tensor, actions: Tensor, _next_observations: Tensor, /) -> Tensor:
    """Pendulum-v1: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) before the step; o = (cos, sin, velocity)."""
    angle = torch.atan2(observations[..., 1], observations[..., 0])
    torque = PENDULUM_TORQUE * actions[..., 0]
    return -(angle.square() + 0.1 * observations[..., 2].square() + 0.001 * torque.square())


def inverted_pendulum_reward(_observations: Tensor, _actions: Tensor, next_observations: Tensor, /) -> Tensor:
    """InvertedPendulum-v5: 1 for every step after which the pole still stands."""
    return (~_fallen(next_observations)).to(next_observations.dtype)


def inverted_pendulum_termination(_observations: Tensor, _actions: Tensor, next_observations: Tensor, /) -> Tensor:
    """InvertedPendulum-v5: the pole, o[1], leans by more than 0.2 rad."""
    return _fallen(next_observations)


def _fallen(observations: Tensor) -> Tensor:
    return observations[..., 1].abs() > LARGEST_POLE_ANGLE
