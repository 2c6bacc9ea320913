"""Gymnasium's tasks: known rules against Gymnasium's own, what is the task's own, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mbrl_async.envs.gymnasium_task import GymnasiumTask, Learned
from mbrl_async.envs.known_rules import inverted_pendulum_reward, inverted_pendulum_termination, pendulum_reward
from mbrl_async.types import Trajectory, transitions_of

ROW = spaces.Box(-np.inf, np.inf, (2,))


class Scripted(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes the step and the action; is worth ten times the step; ends at a given step, one way or the other."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's attribute)

    def __init__(self, observations=ROW, low=-1.0, high=3.0, actions=None, terminates=99, truncates=99, dt=None):
        self.observation_space = observations
        self.action_space = actions or spaces.Box(low, high, (1,))
        self._ends = (terminates, truncates)
        if dt is not None:
            self.dt = dt

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        super().reset(seed=seed)
        self._steps = 0
        return np.array([0.0, self.np_random.uniform()]), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self._steps += 1
        terminated, truncated = (self._steps == end for end in self._ends)
        return np.array([self._steps, action[0]]), 10.0 * self._steps, terminated, truncated, {}


class Painted(Scripted):
    """Every picture is the number of the step; there is no third one."""

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None, **arguments):
        super().__init__(**arguments)
        self.render_mode = render_mode

    def render(self):
        if self._steps > 1:
            raise ImportError("no brush\nis installed")
        return np.full((2, 2, 3), self._steps, dtype=np.uint8)


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    gymnasium.register("Scripted-v0", Scripted, max_episode_steps=7)
    gymnasium.register("Endless-v0", Scripted)
    gymnasium.register("Painted-v0", Painted, max_episode_steps=7)
    yield
    for name in ("Scripted-v0", "Endless-v0", "Painted-v0"):
        del gymnasium.registry[name]


def make(name="Scripted-v0", *, horizon=None, control_period=0.1, reward="learned", termination="learned", **arguments):
    return GymnasiumTask(
        id=name,
        arguments=arguments,
        horizon=horizon,
        control_period=control_period,
        reward=reward,
        termination=termination,
    )


def roll_out(task: GymnasiumTask, seed: int = 0) -> Trajectory:
    generator = np.random.default_rng(seed)
    observations, actions, rewards, terminated = [task.reset(generator)], [], [], False
    for _ in range(task.spec.horizon):
        actions.append(generator.uniform(-1, 1, task.spec.action_size).astype(np.float32))
        observation, reward, terminated, truncated = task.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    return Trajectory(np.stack(observations), np.stack(actions), np.array(rewards, np.float32), 0, terminated)


@pytest.mark.parametrize(
    ("name", "reward", "termination"),
    [
        ("Pendulum-v1", pendulum_reward, None),
        ("InvertedPendulum-v5", inverted_pendulum_reward, inverted_pendulum_termination),
    ],
)
def test_known_rules_are_gymnasiums_own(name, reward, termination):
    for seed in range(5):
        trajectory = roll_out(make(name), seed)
        rows = transitions_of(trajectory)
        found = reward(rows.observations, rows.actions, rows.next_observations)
        # Observations are rounded to float32: 6e-8 of an angle of up to 3 and a velocity of up to 8, squared.
        np.testing.assert_allclose(found.numpy(), trajectory.rewards, rtol=1e-5, atol=1e-5)
        if termination is None:
            assert not trajectory.terminated
        else:
            terminations = termination(rows.observations, rows.actions, rows.next_observations).tolist()
            assert terminations == [False] * (trajectory.length - 1) + [True]


def test_what_is_learned_is_the_tasks_own_in_reality_and_the_models_in_imagination():
    task = make(terminates=3)
    assert task.spec.learned == ("reward", "termination")
    trajectory = roll_out(task)
    assert trajectory.rewards.tolist() == [10.0, 20.0, 30.0]
    assert trajectory.terminated
    outcomes = torch.tensor([[1.0, 2.0, 7.5, 0.4], [1.0, 2.0, -3.0, 0.6]])
    rows = (torch.zeros(2, 2), torch.zeros(2, 1), outcomes)
    assert task.reward(*rows).tolist() == [7.5, -3.0]
    assert task.termination(*rows).tolist() == [False, True]


def test_either_can_be_known_and_the_other_learned():
    def arrived(_observations, _actions, next_observations):
        assert next_observations.shape[-1] == 2, "a rule sees no signals"
        return next_observations[..., 0] >= 2

    task = make(termination=arrived)
    assert task.spec.learned == ("reward",)
    trajectory = roll_out(task)
    assert (trajectory.length, trajectory.terminated) == (2, True)
    assert task.termination(torch.zeros(1, 2), torch.zeros(1, 1), torch.tensor([[2.0, 0.0, 5.0]])).tolist() == [True]
    task = make(reward=lambda o, a, n: n[..., 0] - o[..., 0] + a[..., 0], termination=Learned(), terminates=2)
    assert task.spec.learned == ("termination",)
    trajectory = roll_out(task)
    np.testing.assert_allclose(trajectory.rewards, 1 + trajectory.actions[:, 0], rtol=1e-6)  # float32


def test_termination_and_truncation_are_kept_apart():
    assert (roll_out(make(terminates=3)).length, roll_out(make(terminates=3)).terminated) == (3, True)
    assert (roll_out(make(truncates=3)).length, roll_out(make(truncates=3)).terminated) == (3, False)


@pytest.mark.parametrize("end", ["terminates", "truncates"])
def test_no_step_follows_a_termination_or_a_truncation_but_a_new_episode_does(end):
    task = make(**{end: 3})
    assert roll_out(task).length == 3
    with pytest.raises(RuntimeError, match="GymnasiumTask has no episode to step in: call reset first"):
        task.step(np.zeros(1, dtype=np.float32))
    assert roll_out(task).length == 3


def test_a_termination_can_be_ignored():
    task = make(termination="never", terminates=3)
    trajectory = roll_out(task)
    assert (trajectory.length, trajectory.terminated) == (7, False)
    assert task.termination(torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(1, 3)) is None


def test_the_horizon_is_the_tasks_own_or_the_given_one_even_beyond_it():
    assert roll_out(make()).length == 7
    assert roll_out(make(horizon=12)).length == 12
    assert make("Pendulum-v1").spec.horizon == 200
    with pytest.raises(ValueError, match=r"env\.horizon=null, but the task has no time limit of its own: set"):
        make("Endless-v0")


def test_the_control_period_is_given_or_dt_or_one_frame(monkeypatch):
    assert make(control_period=0.3, dt=0.2).spec.control_period == 0.3
    assert make(control_period=None, dt=0.2).spec.control_period == 0.2
    assert make("Pendulum-v1", control_period=None).spec.control_period == 0.05
    with pytest.raises(ValueError, match=r"env\.control_period=null, but the task has neither dt nor a render_fps"):
        make(control_period=None)
    monkeypatch.setitem(Scripted.metadata, "render_fps", 25)
    assert make(control_period=None).spec.control_period == 0.04


@pytest.mark.parametrize(("action", "command"), [(-1.0, -1.0), (0.0, 1.0), (0.5, 2.0), (1.0, 3.0), (7.0, 3.0)])
def test_actions_are_mapped_onto_the_tasks_limits(action, command):
    task = make()
    task.reset(np.random.default_rng(0))
    observation, *_ = task.step(np.array([action], dtype=np.float32))
    assert observation.tolist() == [1.0, command]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "Pendulm-v1"}, r"env\.id=Pendulm-v1 is no task that Gymnasium knows: did you mean Pendulum-v1"),
        ({"name": "Pendulum-v0"}, r"env\.id=Pendulum-v0 is no task that Gymnasium knows: did you mean Pendulum-v1"),
        ({"name": "zzz"}, r"env\.id=zzz is no task .*pprint_registry"),
        ({"name": "no_such_module:Task-v0"}, r"env\.id=no_such_module:Task-v0 is no task that Gymnasium knows"),
        ({"wind": 3}, r"env\.id=Scripted-v0 cannot be made with env\.arguments=\{'wind': 3\}"),
        ({"name": "CartPole-v1"}, r"env\.id=CartPole-v1 takes Discrete\(2\) as actions: choose a task with one row"),
        ({"actions": spaces.MultiDiscrete([2, 3])}, r"takes MultiDiscrete\(\[2 3\]\) as actions"),
        ({"actions": spaces.Box(-1, 1, (2, 2))}, r"takes Box\(.* as actions"),
        ({"high": np.inf}, r"takes unbounded actions, .*TransformAction"),
        ({"low": 3.0}, r"takes unbounded actions"),
        ({"observations": spaces.Box(0, 255, (8, 8, 3), np.uint8)}, r"observes Box\(.*: only one row of real numbers"),
        ({"observations": spaces.Dict({"a": ROW})}, r"observes Dict\(.*FlattenObservation"),
        ({"observations": spaces.Tuple((ROW, ROW))}, r"observes Tuple\(.*FlattenObservation"),
        ({"observations": spaces.Discrete(4)}, r"observes Discrete\(4\)"),
        ({"reward": "known"}, r"env\.reward=known is none of learned: .*env\.reward\._target_=my_module\.my_reward"),
        ({"termination": "always"}, r"env\.termination=always is none of learned, never"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments)


def test_a_task_that_makes_pictures_is_drawn_when_asked():
    task = make("Painted-v0")
    task.reset(np.random.default_rng(0))
    assert (task.draw() == 0).all()
    task.step(np.zeros(1, dtype=np.float32))
    assert task.draw().shape == (2, 2, 3)
    assert (task.draw() == 1).all()


def test_a_task_that_cannot_be_drawn_says_why():
    task = make("Painted-v0")
    task.reset(np.random.default_rng(0))
    for _ in range(2):
        task.step(np.zeros(1, dtype=np.float32))
    with pytest.raises(RuntimeError, match=r"env\.id=Painted-v0 cannot be drawn: no brush is installed\.$"):
        task.draw()
    with pytest.raises(RuntimeError, match=r"env\.id=Scripted-v0 makes no pictures \(render_mode=None\).*rgb_array"):
        make().draw()
    with pytest.raises(RuntimeError, match="render_mode=human"):
        make("Painted-v0", render_mode="human").draw()


def test_a_module_in_front_of_the_name_registers_the_task(tmp_path, monkeypatch):
    (tmp_path / "registering.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Registered-v0', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make("registering:Registered-v0", termination="never").spec.horizon == 7
    gymnasium.registry.pop("Registered-v0")
