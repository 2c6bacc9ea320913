"""The paper's observations, rewards and resets, checked by hand and against MuJoCo without our code or Gymnasium's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mbrl_async.envs.mujoco_tasks import (
    Ant,
    HalfCheetah,
    Hopper,
    InvertedPendulum,
    MujocoTask,
    Reacher,
    Swimmer,
    Walker2d,
)
from mbrl_async.envs.task import start_observations
from mbrl_async.types import NonFiniteError

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


@dataclass(frozen=True)
class Body:
    """The facts of the paper's table, and of its section on resets, once more and independently."""

    file: str
    frame_skip: int
    hidden: int
    noise: float
    velocity_noise: Literal["normal", "uniform"]
    strength: float = 1.0


BODIES = {
    HalfCheetah: Body("half_cheetah.xml", 5, 1, 0.1, "normal"),
    Ant: Body("ant.xml", 5, 2, 0.1, "normal"),
    Hopper: Body("hopper.xml", 4, 1, 0.005, "uniform"),
    Walker2d: Body("walker2d_v5.xml", 4, 1, 0.005, "uniform"),
    Swimmer: Body("swimmer.xml", 4, 2, 0.1, "uniform"),
    InvertedPendulum: Body("inverted_pendulum.xml", 2, 0, 0.01, "uniform", strength=3.0),
}


@pytest.fixture(params=BODIES, ids=lambda task_class: task_class.__name__)
def pair(request: pytest.FixtureRequest) -> tuple[MujocoTask, Body]:
    return request.param(horizon=200), BODIES[request.param]


def observation_with(size: int, **entries: float) -> torch.Tensor:
    observation = torch.zeros(size, dtype=torch.float64)
    for index, value in entries.items():
        observation[int(index.removeprefix("o"))] = value
    return observation


# By hand, each from the table's formula. The rewards are sums of a few decimal fractions in float64.
REWARDS = [
    # 2 - 0.1 (0.25 + 1)
    (HalfCheetah, observation_with(17, o0=9, o8=2), [0.5, -1, 0, 0, 0, 0], 1.875),
    # 1.5 - 0.1 (1 + 0.25) - 3 (0.77 - 0.57)^2 + 1
    (Ant, observation_with(27, o0=0.77, o13=1.5), [1, 0, 0, 0, 0, 0, 0, -0.5], 2.255),
    # -0.4 - 0.1 (0.04 + 1 + 0.25) - 3 (1.2 - 1.3)^2 + 1
    (Hopper, observation_with(11, o0=1.2, o5=-0.4), [0.2, 1, -0.5], 0.441),
    # 0.8 - 0.1 (1 + 1) - 3 (1.0 - 1.3)^2 + 1
    (Walker2d, observation_with(17, o0=1.0, o8=0.8), [1, 0, 0, 0, 0, -1], 1.33),
    # 0.3 - 0.0001 (1 + 0.25)
    (Swimmer, observation_with(8, o3=0.3), [1, -0.5], 0.299875),
    # -0.3^2, whatever the action
    (InvertedPendulum, observation_with(4, o0=5, o1=-0.3), [1], -0.09),
    # -sqrt(0.04 + 0.09 + 0.36) - (0.25 + 0.01)
    (Reacher, observation_with(11, o0=1, o8=0.2, o9=-0.3, o10=0.6), [0.5, 0.1], -0.96),
]


@pytest.mark.parametrize(
    ("task_class", "observation", "action", "expected"), REWARDS, ids=[case[0].__name__ for case in REWARDS]
)
def test_the_reward_is_the_papers(
    task_class: type[MujocoTask], observation: torch.Tensor, action: list[float], expected: float
) -> None:
    task = task_class(horizon=200)
    nowhere = torch.full_like(observation, torch.nan)  # the paper's rewards never look at the next observation
    reward = task.reward(observation, torch.tensor(action, dtype=torch.float64), nowhere)
    assert float(reward) == pytest.approx(expected, abs=1e-12)


def start_of(body: Body, data: mujoco.MjData, seed: int) -> None:
    """The documented reset: uniform noise on positions, then uniform or normal noise on velocities."""
    generator = np.random.default_rng(seed)
    data.qpos += generator.uniform(-body.noise, body.noise, data.qpos.shape)
    if body.velocity_noise == "normal":
        data.qvel += body.noise * generator.standard_normal(data.qvel.shape)
    else:
        data.qvel += generator.uniform(-body.noise, body.noise, data.qvel.shape)


def observed(body: Body, data: mujoco.MjData) -> NDArray[np.float32]:
    return np.concatenate([data.qpos[body.hidden :], data.qvel]).astype(np.float32)


def test_trajectories_are_those_of_mujoco_alone(pair: tuple[MujocoTask, Body]) -> None:
    task, body = pair
    model = mujoco.MjModel.from_xml_path(str(ASSETS / body.file))
    data = mujoco.MjData(model)
    start_of(body, data, seed=1)
    mujoco.mj_forward(model, data)  # as after any reset; it also warms the contact solver
    np.testing.assert_array_equal(task.reset(np.random.default_rng(1)), observed(body, data))
    actions = np.random.default_rng(2).uniform(-1.2, 1.2, (50, task.spec.action_size)).astype(np.float32)
    for action in actions:
        data.ctrl[:] = body.strength * np.clip(action.astype(np.float64), -1, 1)
        for _ in range(body.frame_skip):
            mujoco.mj_step(model, data)
        observation, *_ = task.step(action)
        np.testing.assert_array_equal(observation, observed(body, data))


def test_velocities_are_observed_as_they_are() -> None:
    """Gymnasium cuts those of Hopper and Walker2d at 10; the paper does not."""
    task = Hopper(horizon=200)
    task.reset(np.random.default_rng(0))
    task._body.data.qvel[-1] = 40.0
    observation, *_ = task.step(np.zeros(3, dtype=np.float32))
    assert observation[-1] > 10


def test_start_observations_have_the_documented_distribution(pair: tuple[MujocoTask, Body]) -> None:
    """Bounds at five standard errors: 168 comparisons fail together with odds of 1 in 10 000 over seeds."""
    task, body = pair
    count = 400
    start = start_observations(task, count, np.random.default_rng(3)).double()  # (N, O)
    model = mujoco.MjModel.from_xml_path(str(ASSETS / body.file))
    uniform = body.noise / np.sqrt(3)
    velocity_scale = body.noise if body.velocity_noise == "normal" else uniform
    centre = np.concatenate([model.qpos0[body.hidden :], np.zeros(model.nv)])
    scale = np.array([uniform] * (model.nq - body.hidden) + [velocity_scale] * model.nv)
    assert (np.abs(start.mean(0).numpy() - centre) < 5 * scale / np.sqrt(count)).all()
    # Standard error of a standard deviation: scale / sqrt(2 N) for the normal; less for the uniform.
    assert (np.abs(start.std(0).numpy() - scale) < 5 * scale / np.sqrt(2 * count)).all()


def test_a_reacher_starts_nearly_straight_with_a_target_within_reach() -> None:
    start = start_observations(Reacher(horizon=200), 400, np.random.default_rng(3)).double().numpy()  # (N, 11)
    assert (start[:, 0:2] > np.cos(0.1) - 1e-6).all(), "Joint angles start within 0.1 rad of zero."
    radius = np.linalg.norm(start[:, 4:6], axis=1)
    assert (radius < 0.2).all(), "Targets lie within 0.2 m."
    # Uniform in a disc of radius R: the mean of radius^2 is R^2 / 2, its deviation R^2 / sqrt(12); five standard
    # errors, 1 in 1 700 000 over seeds.
    assert abs((radius**2).mean() - 0.02) < 5 * 0.04 / np.sqrt(12 * 400)
    assert (np.abs(start[:, 6:8]) <= 0.005 + 1e-6).all(), "Joint velocities start within 0.005 rad/s."


def test_a_reacher_observes_where_its_fingertip_is_now() -> None:
    """Links of 0.1 and 0.11 m, by trigonometry from the same observation."""
    task = Reacher(horizon=200)
    task.reset(np.random.default_rng(4))
    for _ in range(20):
        observation, *_ = task.step(np.array([1.0, -0.7], dtype=np.float32))
        shoulder, elbow = np.arctan2(observation[2:4], observation[0:2]).astype(np.float64)
        fingertip = 0.1 * np.array([np.cos(shoulder), np.sin(shoulder)])
        fingertip += 0.11 * np.array([np.cos(shoulder + elbow), np.sin(shoulder + elbow)])
        # float32 angles are known to 1e-7 rad; one physics step of delay would be off by 1e-3 m and more.
        np.testing.assert_allclose(observation[8:10], fingertip - observation[4:6], atol=1e-6)
        assert abs(observation[10]) < 1e-6, "The arm moves in the plane of its target."


def test_a_diverged_state_is_an_error_that_names_task_and_step() -> None:
    task = HalfCheetah(horizon=200)
    task.reset(np.random.default_rng(0))
    task.step(np.zeros(6, dtype=np.float32))
    task._body.data.qvel[0] = 1e12  # MuJoCo's own limit is 1e10
    with pytest.raises(NonFiniteError, match="HalfCheetah diverged at step 2"):
        task.step(np.zeros(6, dtype=np.float32))
    with pytest.raises(RuntimeError, match="call reset first"):
        task.step(np.zeros(6, dtype=np.float32))
    assert np.isfinite(task.reset(np.random.default_rng(0))).all()
    task.step(np.zeros(6, dtype=np.float32))


def test_a_nan_in_the_state_is_an_error() -> None:
    task = Swimmer(horizon=200)
    task.reset(np.random.default_rng(0))
    task._body.data.qpos[0] = np.nan
    with pytest.raises(NonFiniteError, match="Swimmer diverged at step 1"):
        task.step(np.zeros(2, dtype=np.float32))


def test_mujoco_neither_prints_nor_writes_into_the_working_directory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        task = HalfCheetah(horizon=200)  # its file draws a warning at loading
        assert caplog.messages == []
        task.reset(np.random.default_rng(0))
        task._body.data.qvel[0] = 1e12
        with pytest.raises(NonFiniteError):
            task.step(np.zeros(6, dtype=np.float32))
    assert any("QVEL" in message for message in caplog.messages), "Every other warning must reach the log."
    assert list(tmp_path.iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "settotalmass" not in captured.err
