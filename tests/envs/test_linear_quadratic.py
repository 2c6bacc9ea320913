"""The point mass: its motion by hand, and its optimum by a way that shares nothing with the Riccati recursion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.envs.task import start_observations
from tests.optimum import optimal_return

HORIZON, PERIOD = 50, 0.1


@pytest.fixture
def task() -> LinearQuadratic:
    return LinearQuadratic(horizon=HORIZON, control_period=PERIOD)


def optimal_actions(start: NDArray[np.float64]) -> NDArray[np.float64]:
    """All actions of a horizon at once, as one least-squares problem: minimise |stacked observations|^2 + |actions|^2.

    The position after k steps is x + k h v + sum over j < k of h^2 (k - j - 1/2) a_j, the velocity v + h sum a_j.
    """
    step, acting = np.arange(HORIZON)[:, None], np.arange(HORIZON)[None, :]
    before = acting < step
    to_position = np.where(before, PERIOD**2 * (step - acting - 0.5), 0.0)  # (T, T)
    to_velocity = np.where(before, PERIOD, 0.0)  # (T, T)
    effects = np.concatenate([to_position, to_velocity, np.eye(HORIZON)])  # (3T, T)
    drift = start[:2] + PERIOD * step * start[2:]  # (T, 2)
    unforced = np.concatenate([drift, np.broadcast_to(start[2:], (HORIZON, 2)), np.zeros((HORIZON, 2))])  # (3T, 2)
    return np.linalg.lstsq(effects, -unforced)[0]  # (T, 2)


def executed_return(task: LinearQuadratic, actions: NDArray[np.float64], seed: int) -> float:
    task.reset(np.random.default_rng(seed))
    return sum(task.step(action.astype(np.float32))[1] for action in actions)


def test_it_moves_as_a_point_mass_does(task: LinearQuadratic) -> None:
    x, y, velocity_x, velocity_y = task.reset(np.random.default_rng(0)).astype(np.float64)
    observation, reward, *_ = task.step(np.array([1.0, -0.5], dtype=np.float32))
    expected = [
        x + 0.1 * velocity_x + 0.005 * 1.0,
        y + 0.1 * velocity_y - 0.005 * 0.5,
        velocity_x + 0.1 * 1.0,
        velocity_y - 0.1 * 0.5,
    ]
    np.testing.assert_allclose(observation, expected, atol=1e-7)  # float32 below 1
    squares = x**2 + y**2 + velocity_x**2 + velocity_y**2 + 1.0 + 0.25
    assert reward == pytest.approx(-squares, abs=1e-6)  # float32 near 1.5


def test_the_reward_by_hand(task: LinearQuadratic) -> None:
    observation, action = torch.tensor([0.1, -0.2, 0.3, 0.4]), torch.tensor([0.5, -1.0])
    # -(0.01 + 0.04 + 0.09 + 0.16) - (0.25 + 1)
    assert float(task.reward(observation, action, observation)) == pytest.approx(-1.55, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimal_return_is_reached_by_the_optimal_actions(task: LinearQuadratic, seed: int) -> None:
    start = task.reset(np.random.default_rng(seed))
    best = optimal_return(task, start)
    actions = optimal_actions(start.astype(np.float64))
    # Observations and actions are rounded to float32 (6e-8 relative) and 50 rewards are summed.
    assert executed_return(task, actions, seed) == pytest.approx(best, rel=1e-5)


def test_no_other_actions_do_better(task: LinearQuadratic) -> None:
    start = task.reset(np.random.default_rng(1))
    best, actions = optimal_return(task, start), optimal_actions(start.astype(np.float64))
    generator = np.random.default_rng(2)
    for scale in (0.03, 0.1, 0.3):
        # The loss is at least the sum of the squared disturbances: 100 terms of scale^2, 0.09 for the smallest scale.
        disturbed = actions + scale * generator.standard_normal(actions.shape)
        assert executed_return(task, disturbed, 1) < best


def test_the_limits_do_not_bind_at_the_optimum_from_any_corner_of_the_start_box() -> None:
    for corner in np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T * [0.5, 0.5, 0.05, 0.05]:
        assert np.abs(optimal_actions(corner)).max() < 1  # linear in the start, hence greatest at a corner


def test_one_step_leaves_nothing_to_gain_by_acting() -> None:
    task = LinearQuadratic(horizon=1, control_period=PERIOD)
    assert optimal_return(task, np.array([0.3, 0.0, 0.0, 0.4], dtype=np.float32)) == pytest.approx(-0.25, abs=1e-7)


def test_starts_are_uniform_in_the_documented_box(task: LinearQuadratic) -> None:
    """Means and deviations within five standard errors: 8 comparisons, 1 in 200 000 over seeds."""
    count = 2000
    start = start_observations(task, count, np.random.default_rng(3)).double()  # (N, 4)
    limits = torch.tensor([0.5, 0.5, 0.05, 0.05]).double()
    scale = limits / np.sqrt(3)
    assert (start.abs() <= limits * (1 + 1e-7)).all()  # float32 rounding at the border
    assert (start.mean(0).abs() < 5 * scale / np.sqrt(count)).all()
    assert ((start.std(0) - scale).abs() < 5 * scale / np.sqrt(2 * count)).all()


def test_the_matrices_are_those_of_the_motion(task: LinearQuadratic) -> None:
    start = task.reset(np.random.default_rng(4)).astype(np.float64)
    action = np.array([0.25, -0.75], dtype=np.float32)
    observation, *_ = task.step(action)
    np.testing.assert_allclose(observation, task.state_matrix @ start + task.action_matrix @ action, atol=1e-7)
