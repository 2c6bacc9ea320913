"""The arm and its three scenes: what they promise beyond the contract of every task."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mbrl_async.config import ConfigError, build, validate
from mbrl_async.envs.task import outcome_metrics
from mbrl_async.robot.arm import Arm, Scene
from mbrl_async.robot.arm_task import ArmTask
from mbrl_async.types import FloatArray
from tests.robot.poses import posture_at, servo_torques
from tests.small import CONFIG_DIRECTORY, composed

SCENES: tuple[Scene, ...] = ("reach", "match", "stack")
START_DISTANCES = {"reach": 61.0, "match": 4.5, "stack": 6.8}
"""cm a point, the paper's."""
NO_NOISE = "env.start_noise=0"


def make(scene: Scene, *overrides: str) -> ArmTask:
    task: ArmTask = build(composed(f"env=arm_{scene}", *overrides).env)
    return task


def goals(scene: Scene) -> np.ndarray:
    return np.array(composed(f"env=arm_{scene}").env.goals)  # (P, 3)


def start(scene: Scene) -> np.ndarray:
    return np.array(composed(f"env=arm_{scene}").env.start_posture)  # (J,)


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    return request.param


def test_the_specification_is_the_papers(scene):
    spec = make(scene).spec
    assert (spec.observation_size, spec.action_size) == (23, 7)
    assert (spec.horizon, spec.control_period, spec.reset_seconds) == (30, 0.2, 5.0)
    assert spec.repeatable
    assert not spec.real_time


def test_the_limits_are_the_papers(scene):
    limits = Arm(scene).limits
    assert limits.torques.tolist() == [3, 3.5, 2, 2, 1, 0.5, 0.75]
    assert limits.lower.tolist() == [-0.715, -0.524, -0.8, -2.321, -np.inf, -2.094, -np.inf]
    assert limits.upper.tolist() == [2.285, 1.396, 3.9, 0, np.inf, 0, np.inf]


def test_the_physics_is_at_least_as_fine_as_500_hz(scene):
    assert Arm(scene).model.opt.timestep <= 0.002


def test_the_start_is_as_far_from_the_goal_as_the_papers(scene):
    observation = make(scene, NO_NOISE).reset(np.random.default_rng(0))
    distances = np.linalg.norm(observation[14:].reshape(3, 3) - goals(scene), axis=1)
    assert 100 * distances.mean() == pytest.approx(START_DISTANCES[scene], abs=0.1)


def test_some_posture_within_the_limits_has_the_points_at_the_goals(scene):
    arm = Arm(scene)
    arm.place(posture_at(arm, goals(scene), start(scene)))
    np.testing.assert_allclose(arm.state().points, goals(scene), atol=1e-4)  # the goals are given to 0.1 mm


def test_gravity_does_not_move_the_arm(scene):
    task = make(scene)
    first = task.reset(np.random.default_rng(0))
    for _ in range(task.spec.horizon):
        last = task.step(np.zeros(7, np.float32)).observation
    np.testing.assert_allclose(last, first, atol=1e-5)


def test_random_torques_move_the_arm_without_spinning_it(scene):
    task, generator = make(scene), np.random.default_rng(0)
    observations = [task.reset(generator)]
    actions = generator.uniform(-1, 1, (task.spec.horizon, 7)).astype(np.float32)
    observations.extend(task.step(action).observation for action in actions)
    angles, velocities = np.split(np.stack(observations)[:, :14], 2, axis=1)
    assert (np.ptp(angles, axis=0) > 0.1).sum() >= 5, "most joints move by more than 6 degrees, contacts or not"
    assert np.abs(velocities).max() < 4, "no joint turns faster than its torque against its damping lets it"


def drive(task: ArmTask, targets: list[np.ndarray]) -> FloatArray:
    """Let a servo go to one posture after the other, each for its share of the horizon; the observations."""
    limits = Arm("reach").limits.torques
    observations = [task.reset(np.random.default_rng(0))]
    for t in range(task.spec.horizon):
        target = targets[t * len(targets) // task.spec.horizon]
        torques = servo_torques(target, observations[-1][:7], observations[-1][7:14])
        observations.append(task.step((torques / limits).astype(np.float32)).observation)
    return np.stack(observations)


def test_the_goals_are_reached_by_torques_within_the_horizon(scene):
    """Into the hole only from above it: the way straight there ends at the board."""
    arm = Arm(scene)
    goal = posture_at(arm, goals(scene), start(scene))
    above = posture_at(arm, goals(scene) + np.array([0, 0, 0.05]), start(scene))
    metrics = outcome_metrics(make(scene), drive(make(scene), [above, goal]))
    assert metrics["final_distance_cm"] < 0.5
    assert metrics["success"] == 1.0


def test_the_board_stops_a_shape_that_is_not_above_its_hole():
    arm = Arm("match")
    beside = posture_at(arm, goals("match") + np.array([0.03, 0, 0]), start("match"))
    metrics = outcome_metrics(make("match"), drive(make("match"), [beside]))
    assert metrics["success"] == 0.0
    task = make("match")
    assert (drive(task, [beside])[-1, 16] - goals("match")[0, 2]) > 0.02, "its tip stays on the board"


def test_the_block_stops_what_is_put_onto_it():
    arm = Arm("stack")
    below = posture_at(arm, goals("stack") - np.array([0, 0, 0.03]), start("stack"))
    last = drive(make("stack"), [below])[-1]
    assert last[16] - goals("stack")[0, 2] > -0.005, "solid things give way by millimetres"


def test_the_reward_is_the_papers():
    task = make("reach")
    observation = torch.arange(23, dtype=torch.float64) / 23
    action = torch.linspace(-1, 1, 7, dtype=torch.float64)
    distance = float((observation[14:] - torch.tensor(goals("reach")).reshape(-1)).square().sum())
    expected = -(distance + np.log(distance + 1e-5)) - 0.125 * float(
        observation[7:14].square().sum() + (action**2).sum()
    )
    assert float(task.reward(torch.full((23,), torch.nan), action, observation)) == pytest.approx(expected, rel=1e-12)


def test_the_outcome_is_that_of_the_last_observation():
    task, observations = make("reach"), np.zeros((31, 23), np.float32)
    observations[-1, 14:] = (goals("reach") + np.array([0.0, 0.02, 0.0])).reshape(-1)
    assert task.outcome_metrics(observations) == {
        "final_distance_cm": pytest.approx(2.0, abs=1e-4),
        "success": 1.0,
        "unconfirmed_torques": 0.0,
    }
    observations[-1, 14:] = (goals("reach") + np.array([0.0, 0.0, 0.04])).reshape(-1)
    assert task.outcome_metrics(observations)["success"] == 0.0


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("env.start_posture=[0,0,0,0,0,0]", "start_posture"),
        ("env.goals=[[0,0,0],[0,0,0]]", "goals"),
        ("env.goals=[[0,0,0],[0,0,0],[0,0]]", "goals"),
        ("env.robot.scene=pour", "scene=pour"),
        ("env.robot.control_period=0", "control_period=0"),
        ("env.success=[0.03]", "success"),
        ("env.torque_cost=-1", "torque_cost=-1"),
    ],
)
def test_impossible_settings_are_refused(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        validate(composed("env=arm_reach", override))


def test_a_start_beyond_a_joints_range_is_refused():
    task = make("reach", "env.start_posture=[3,0,0,0,0,0,0]", NO_NOISE)
    with pytest.raises(ValueError, match=r"joint 0 moves from -0\.715 to 2\.285 rad"):
        task.reset(np.random.default_rng(0))


def test_what_the_task_says_of_a_trajectory_is_documented():
    document = (CONFIG_DIRECTORY.parent / "docs" / "metrics.md").read_text()
    for name in make("reach").outcome_metrics(np.zeros((31, 23), np.float32)):
        assert f"`collect/{name}`" in document
