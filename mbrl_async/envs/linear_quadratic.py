"""A point mass with linear dynamics and a quadratic reward: its optimum is known, and it needs no MuJoCo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.envs.simulated_task import SimulatedTask
from mbrl_async.types import FloatArray, TaskSpec

_DIMENSIONS = 2
_START_POSITION = 0.5
_START_VELOCITY = 0.05


class LinearQuadratic(SimulatedTask):
    """Bring a frictionless point mass in the plane to rest at the origin.

    o = (position x y in m, velocity x y in m/s); the action is the acceleration in m/s^2, held for a control period h:

        o' = A o + B a,   A = [[1, h], [0, 1]],   B = [h^2 / 2, h]   (for each of x and y)

    Each position starts uniformly within 0.5, each velocity within 0.05 of zero: so near that an optimal action stays
    within [-1, 1].
    """

    def __init__(self, *, horizon: PositiveInt, control_period: PositiveFloat) -> None:
        super().__init__(TaskSpec(2 * _DIMENSIONS, _DIMENSIONS, horizon, control_period))
        axes = np.eye(_DIMENSIONS)
        self.state_matrix: NDArray[np.floating] = np.kron([[1.0, control_period], [0.0, 1.0]], axes)  # (O, O)
        self.action_matrix: NDArray[np.floating] = np.kron([[control_period**2 / 2], [control_period]], axes)  # (O, A)
        self._state = np.zeros(2 * _DIMENSIONS)  # (O,)

    def begin_episode(self, generator: np.random.Generator) -> FloatArray:
        """Draw position and velocity from their boxes; the first observation, (O,)."""
        limits = np.repeat([_START_POSITION, _START_VELOCITY], _DIMENSIONS)  # (O,)
        self._state = generator.uniform(-limits, limits)
        return self._state.astype(np.float32)

    def advance(self, action: FloatArray) -> FloatArray:
        """Accelerate by the action, (A,), for one control period; the next observation, (O,)."""
        self._state = self.state_matrix @ self._state + self.action_matrix @ action
        return self._state.astype(np.float32)

    def reward(self, observations: Tensor, actions: Tensor, _outcomes: Tensor, /) -> Tensor:
        """-|o|^2 - |a|^2."""
        return -observations.square().sum(dim=-1) - actions.square().sum(dim=-1)
