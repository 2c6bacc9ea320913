"""What every task promises; a new file in conf/env is covered by being there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mbrl_async.config import build
from mbrl_async.envs.task import Task, start_observations
from mbrl_async.types import FloatArray, Trajectory, Transitions, transitions_of
from tests.small import composed

CONFIGURATIONS = sorted((Path(__file__).parents[2] / "conf" / "env").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGURATIONS]

STEPS = 30

# arXiv:1910.12453: observation size, action size, control period in seconds; horizon 200.
PAPER = {
    "half_cheetah": (17, 6, 0.05),
    "ant": (27, 8, 0.05),
    "hopper": (11, 3, 0.008),
    "walker2d": (17, 6, 0.008),
    "swimmer": (8, 2, 0.04),
    "inverted_pendulum": (4, 1, 0.04),
    "reacher": (11, 2, 0.02),
}


def make(name: str) -> Task:
    task: Task = build(composed(f"env={name}").env)
    return task


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Iterator[Task]:
    task = make(request.param)
    yield task
    task.close()


def random_actions(task: Task, seed: int, limit: float = 1.0) -> FloatArray:
    shape = (STEPS, task.spec.action_size)
    return np.random.default_rng(seed).uniform(-limit, limit, shape).astype(np.float32)  # (T, A)


def roll_out(task: Task, actions: NDArray[np.floating], seed: int) -> Trajectory:
    """Act until the actions are used up, or the task ends."""
    observations, rewards, terminated = [task.reset(np.random.default_rng(seed))], [], False
    for action in actions:
        observation, reward, terminated, truncated = task.step(action)
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    return Trajectory(np.stack(observations), actions[: len(rewards)], np.array(rewards, np.float32), 0, terminated)


def transitions(task: Task, trajectory: Trajectory) -> Transitions:
    return transitions_of(trajectory, learned=task.spec.learned)


def assert_identical(one: Trajectory, other: Trajectory, message: str) -> None:
    np.testing.assert_array_equal(one.observations, other.observations, message)
    np.testing.assert_array_equal(one.rewards, other.rewards, message)


@pytest.mark.parametrize("name", PAPER)
def test_the_specification_is_the_papers(name: str) -> None:
    spec = make(name).spec
    sizes = (spec.observation_size, spec.action_size)
    assert sizes == PAPER[name][:2], f"{name} must have the paper's observation and action sizes."
    assert spec.control_period == pytest.approx(PAPER[name][2], rel=1e-12), "dt is a product of two decimal fractions."
    assert spec.horizon == 200, f"{name} must have the paper's horizon."


def test_every_file_begins_by_saying_what_it_is() -> None:
    for path in CONFIGURATIONS:
        assert path.read_text().startswith("# "), f"{path.name} must begin with a comment that says what it is."


def test_observations_and_rewards_have_the_promised_shapes_and_types(task: Task) -> None:
    observation = task.reset(np.random.default_rng(0))
    assert observation.shape == (task.spec.observation_size,), "reset must return one observation, (O,)."
    assert observation.dtype == np.float32, "reset must return float32."
    observation, reward, *_ = task.step(random_actions(task, seed=0)[0])
    assert observation.shape == (task.spec.observation_size,), "step must return one observation, (O,)."
    assert observation.dtype == np.float32, "step must return float32."
    assert type(reward) is float, "step must return the reward as a Python float."


def test_a_whole_horizon_can_be_run_unless_the_task_terminates(task: Task) -> None:
    generator = np.random.default_rng(1)
    actions = generator.uniform(-1, 1, (task.spec.horizon, task.spec.action_size)).astype(np.float32)
    trajectory = roll_out(task, actions, 1)
    assert np.isfinite(trajectory.observations).all(), "Every observation of a horizon must be finite."
    assert np.isfinite(trajectory.rewards).all(), "Every reward of a horizon must be finite."
    assert trajectory.terminated or trajectory.length == task.spec.horizon, "Only a termination may end it earlier."


def test_nothing_can_be_done_after_the_end(task: Task) -> None:
    trajectory = roll_out(task, random_actions(task, seed=9), 10)
    if trajectory.terminated:
        with pytest.raises(RuntimeError, match="call reset first"):
            task.step(np.zeros(task.spec.action_size, dtype=np.float32))
    assert np.isfinite(task.reset(np.random.default_rng(0))).all(), "A reset must always begin a new episode."


def test_the_real_terminations_are_the_batched_ones(task: Task) -> None:
    trajectory = roll_out(task, random_actions(task, seed=9, limit=1.5), 10)
    rows = transitions(task, trajectory)
    batched = task.termination(rows.observations, rows.actions, rows.outcomes)
    if batched is None:
        assert not trajectory.terminated, "A task that says that it never terminates must not."
    else:
        assert batched.dtype == torch.bool, "termination must return bool."
        expected = [False] * (trajectory.length - 1) + [trajectory.terminated]
        assert batched.tolist() == expected, "step and termination must agree."
        folded = task.termination(
            *(part[:1].expand(5, 2, -1) for part in (rows.observations, rows.actions, rows.outcomes))
        )
        assert folded is not None
        assert folded.shape == (5, 2), "termination must keep the leading dimensions."


def test_the_same_generator_state_gives_the_same_trajectory_bit_for_bit(task: Task) -> None:
    actions = random_actions(task, seed=2)
    assert_identical(
        roll_out(task, actions, 3), roll_out(task, actions, 3), "Equal seeds must give equal trajectories."
    )


def test_another_generator_state_gives_another_trajectory(task: Task) -> None:
    actions = random_actions(task, seed=2)
    one, other = roll_out(task, actions, 3), roll_out(task, actions, 4)
    assert not np.array_equal(one.observations[0], other.observations[0]), "The start must be drawn with the generator."


def test_one_generator_goes_on_from_reset_to_reset(task: Task) -> None:
    generator = np.random.default_rng(3)
    assert not np.array_equal(task.reset(generator), task.reset(generator)), "reset must advance the generator."


def test_stepping_draws_no_random_numbers(task: Task) -> None:
    generator = np.random.default_rng(3)
    task.reset(generator)
    state = generator.bit_generator.state
    task.step(random_actions(task, seed=2)[0])
    assert generator.bit_generator.state == state, "step must not use the generator of the last reset."


def test_nothing_leaks_from_one_episode_into_the_next(task: Task) -> None:
    actions = random_actions(task, seed=5)
    fresh = roll_out(task, actions, 6)
    roll_out(task, random_actions(task, seed=7), 8)  # another episode between
    assert_identical(roll_out(task, actions, 6), fresh, "A used task must behave like a fresh one.")


# The real step computes one row, the batch many: torch may sum in another order, which moves the last bits of
# float32 (2^-24 relative; the largest sum here has 11 terms, and terms of opposite sign up to 10 may cancel).
REWARD_TOLERANCE = {"rtol": 1e-6, "atol": 1e-5}


def test_the_real_reward_is_the_batched_reward(task: Task) -> None:
    trajectory = roll_out(task, random_actions(task, seed=9, limit=1.5), 10)
    rows = transitions(task, trajectory)
    batched = task.reward(rows.observations, rows.actions, rows.outcomes)
    assert batched.shape == (trajectory.length,), "reward must return one number a transition."
    np.testing.assert_allclose(
        batched.numpy(), trajectory.rewards, **REWARD_TOLERANCE, err_msg="step and reward must agree."
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reward_takes_any_leading_dimensions_and_either_precision(task: Task, dtype: torch.dtype) -> None:
    given = transitions(task, roll_out(task, random_actions(task, seed=9), 10))
    thirty = torch.arange(STEPS) % len(given)  # a task may have ended earlier
    rows = [part[thirty].to(dtype) for part in (given.observations, given.actions, given.outcomes)]
    flat = task.reward(*rows)  # (T,)
    folded = task.reward(*(part.reshape(5, 2, 3, -1) for part in rows))  # (5, 2, 3)
    assert flat.dtype == dtype, "reward must keep the precision that it is given."
    assert folded.shape == (5, 2, 3), "reward must keep the leading dimensions."
    np.testing.assert_allclose(folded.reshape(-1).numpy(), flat.numpy(), **REWARD_TOLERANCE)


def test_the_reward_leaves_its_arguments_as_they_were(task: Task) -> None:
    given = transitions(task, roll_out(task, random_actions(task, seed=9), 10))
    rows = (given.observations, given.actions, given.outcomes)
    copies = [part.clone() for part in rows]
    task.reward(*rows)
    task.termination(*rows)
    for part, copy in zip(rows, copies, strict=True):
        assert torch.equal(part, copy), "reward and termination must not write into their arguments."


def test_actions_outside_the_limits_act_as_the_clipped_ones(task: Task) -> None:
    actions = random_actions(task, seed=11, limit=3.0)
    assert np.abs(actions).max() > 1, "The test must try actions outside the limits."
    beyond, within = roll_out(task, actions, 12), roll_out(task, np.clip(actions, -1, 1), 12)
    assert_identical(beyond, within, "An action must be executed and rewarded as the clipped one.")


def test_the_action_matters_within_the_limits(task: Task) -> None:
    size = task.spec.action_size
    weak = roll_out(task, np.full((STEPS, size), 0.5, dtype=np.float32), 13)
    strong = roll_out(task, np.full((STEPS, size), 1.0, dtype=np.float32), 13)
    assert not np.array_equal(weak.observations[1], strong.observations[1]), "An action must reach the actuators."


def test_the_caller_may_write_into_what_it_got_and_gave(task: Task) -> None:
    actions = random_actions(task, seed=14)
    expected = roll_out(task, actions, 15)
    observation = task.reset(np.random.default_rng(15))
    for step, action in enumerate(expected.actions.copy()):
        observation[:] = np.nan
        observation, reward, *_ = task.step(action)
        action[:] = np.nan
        np.testing.assert_array_equal(observation, expected.observations[step + 1])
        assert np.float32(reward) == expected.rewards[step], "A task must keep copies of what it remembers."


def test_two_tasks_in_two_threads_do_not_disturb_each_other(task: Task, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["task"]
    tasks = [task, make(name)]
    actions = [random_actions(task, seed) for seed in (16, 17)]
    alone = [roll_out(*arguments) for arguments in zip(tasks, actions, (18, 19), strict=True)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            together = pool.map(roll_out, tasks, actions, (18, 19), timeout=60)
            for one, other in zip(together, alone, strict=True):
                assert_identical(one, other, "A task must not notice another one.")
    tasks[1].close()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrongly_shaped_action_is_refused(task: Task, change: int) -> None:
    task.reset(np.random.default_rng(0))
    with pytest.raises(ValueError, match=rf"it takes \({task.spec.action_size},\)"):
        task.step(np.zeros(task.spec.action_size + change, dtype=np.float32))


def test_a_batch_of_actions_is_refused(task: Task) -> None:
    task.reset(np.random.default_rng(0))
    with pytest.raises(ValueError, match="it takes"):
        task.step(np.zeros((1, task.spec.action_size), dtype=np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused_and_changes_nothing(task: Task, value: float) -> None:
    actions = random_actions(task, seed=20)
    expected = roll_out(task, actions, 21)
    task.reset(np.random.default_rng(21))
    with pytest.raises(ValueError, match="at step 1: every entry must be finite"):
        task.step(np.full(task.spec.action_size, value, dtype=np.float32))
    observation, *_ = task.step(actions[0])
    np.testing.assert_array_equal(observation, expected.observations[1])


def test_a_step_before_the_first_reset_is_refused(task: Task) -> None:
    with pytest.raises(RuntimeError, match="call reset first"):
        task.step(np.zeros(task.spec.action_size, dtype=np.float32))


def test_start_observations_are_successive_real_resets(task: Task) -> None:
    generator = np.random.default_rng(22)
    expected = [task.reset(generator) for _ in range(5)]
    drawn = start_observations(task, 5, np.random.default_rng(22))
    assert drawn.dtype == torch.float32, "Start observations must be float32."
    np.testing.assert_array_equal(drawn.numpy(), np.stack(expected))


@pytest.mark.parametrize("count", [0, -1])
def test_start_observations_of_no_rollout_are_refused(task: Task, count: int) -> None:
    with pytest.raises(ValueError, match=f"count={count} .* at least 1"):
        start_observations(task, count, np.random.default_rng(0))
