"""The best that can be had of the linear-quadratic task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mbrl_async.envs.linear_quadratic import LinearQuadratic


def optimal_return(task: LinearQuadratic, observation: NDArray[np.float32]) -> float:
    """The greatest undiscounted return over a whole horizon from `observation`, (O,).

    The Riccati recursion, backwards from P = 0 after the last step with unit cost matrices, gives -o^T P o
    (Anderson and Moore, Optimal Control: Linear Quadratic Methods, 1990, §2.4). An upper bound where the action
    limits bind, which they do not from any start that `reset` draws.
    """
    cost_to_go = np.zeros_like(task.state_matrix)  # P, (O, O)
    for _ in range(task.spec.horizon):
        cost_to_go = _cost_one_step_earlier(task, cost_to_go)
    state = np.asarray(observation, dtype=np.float64)
    return -float(state @ cost_to_go @ state)


def _cost_one_step_earlier(task: LinearQuadratic, cost_to_go: NDArray[np.floating]) -> NDArray[np.floating]:
    a, b, p = task.state_matrix, task.action_matrix, cost_to_go
    gain = np.linalg.solve(np.eye(b.shape[1]) + b.T @ p @ b, b.T @ p @ a)  # (A, O)
    earlier: NDArray[np.floating] = np.eye(len(a)) + a.T @ p @ (a - b @ gain)  # (O, O)
    return earlier
