"""Any task of Gymnasium's registry, with rewards and terminations that the user writes down or a model learns."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mbrl_async.envs.mujoco_warnings import take_over_mujoco_warnings
from mbrl_async.envs.simulated_task import SimulatedTask
from mbrl_async.types import FloatArray, Signal, TaskSpec

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(observations (..., O), executed actions (..., A), next observations (..., O)) -> (...)."""

TERMINATES_ABOVE = 0.5
"""The squared error is a proper score: its least is at the probability, so this asks for what is more probable."""

PICTURES = "rgb_array"
"""Gymnasium's word for a task that is drawn when it is asked for a picture, and not before."""


class Learned:
    """Stands for a reward or a termination that only the real system can tell, so that the model has to learn it."""


class GymnasiumTask(SimulatedTask):
    """A task with one row of bounded real actions and one row of real observations.

    Actions in [-1, 1] are mapped onto the task's own limits. What is known of reward and termination holds in reality
    and in imagination alike, in the place of the task's own; what is learned is the task's own in reality.
    """

    def __init__(
        self,
        *,
        id: str,  # noqa: A002  (Gymnasium's word)
        arguments: Mapping[str, Any],
        horizon: PositiveInt | None,
        control_period: PositiveFloat | None,
        reward: Rule | Learned | str,
        termination: Rule | Learned | str,
    ) -> None:
        """Make the task.

        Args:
            id: its name in the registry; "module:name" imports a module that registers it.
            arguments: the task's own, passed on to `gymnasium.make`.
            horizon: control steps of a trajectory; None: the task's own time limit.
            control_period: seconds; None: the task's own `dt`, or else one frame of what it renders.
            reward: a function, or "learned".
            termination: a function that gives bool, "learned", or "never": then the task's own is ignored.

        Raises:
            ValueError: there is no such task, or it cannot be used so.
        """
        take_over_mujoco_warnings()
        self._reward = _rule("reward", reward, ("learned",))
        self._termination = _rule("termination", termination, ("learned", "never"))
        self._environment = _made(id, arguments)
        self._id = id
        observations = _observation_space(id, self._environment.observation_space)
        self._actions = _action_space(id, self._environment.action_space)
        rules: dict[Signal, Rule | str] = {"reward": self._reward, "termination": self._termination}
        super().__init__(
            TaskSpec(
                observation_size=observations.shape[0],
                action_size=self._actions.shape[0],
                horizon=horizon or _own_horizon(self._environment),
                control_period=control_period or _own_control_period(self._environment),
                learned=tuple(signal for signal, rule in rules.items() if rule == "learned"),
            )
        )
        self._told = (0.0, False, False)  # the task's own reward, termination and truncation of the last step

    def begin_episode(self, generator: np.random.Generator) -> FloatArray:
        """Seed the task with a draw of the generator, and reset it; the first observation, (O,)."""
        observation, _ = self._environment.reset(seed=int(generator.integers(2**31)))
        return np.array(observation, dtype=np.float32)

    def advance(self, action: FloatArray) -> FloatArray:
        """Act for one control period; the next observation, (O,)."""
        low, high = self._actions.low.astype(np.float64), self._actions.high.astype(np.float64)
        command = np.clip(low + 0.5 * (action + 1.0) * (high - low), low, high)
        observation, reward, terminated, truncated, _ = self._environment.step(command.astype(self._actions.dtype))
        self._told = (float(reward), bool(terminated), bool(truncated))
        return np.array(observation, dtype=np.float32)

    def reward(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor:
        """The known function's, or what the model predicts."""
        if isinstance(self._reward, str):
            return self._signal("reward", outcomes)
        return self._reward(observations, actions, outcomes[..., : self.spec.observation_size])

    def termination(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor | None:
        """The known function's, what the model predicts, or never."""
        if self._termination == "never":
            return None
        if isinstance(self._termination, str):
            return self._signal("termination", outcomes) > TERMINATES_ABOVE
        return self._termination(observations, actions, outcomes[..., : self.spec.observation_size])

    def judge(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> tuple[float, bool, bool]:
        """What is known judges itself; what is learned is the task's own."""
        reward, terminated, truncated = self._told
        if not isinstance(self._reward, str):
            reward = float(self._reward(observation, action, next_observation))
        if self._termination == "never":
            terminated = False
        elif not isinstance(self._termination, str):
            terminated = bool(self._termination(observation, action, next_observation))
        return reward, terminated, truncated

    def draw(self) -> NDArray[np.uint8]:
        """See `Drawable.draw`."""
        if self._environment.render_mode != PICTURES:
            raise RuntimeError(
                f"env.id={self._id} makes no pictures (render_mode={self._environment.render_mode}): video=true needs "
                f'a task with "{PICTURES}" among the render_modes of its metadata.'
            )
        try:
            return np.asarray(self._environment.render())
        except Exception as error:  # a task's renderer raises whatever it meets
            raise RuntimeError(f"env.id={self._id} cannot be drawn: {' '.join(str(error).split())}.") from error

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()

    def _signal(self, signal: Signal, outcomes: Tensor) -> Tensor:
        return outcomes[..., self.spec.observation_size + self.spec.learned.index(signal)]


def _rule(name: str, given: Rule | Learned | str, words: tuple[str, ...]) -> Rule | str:
    if isinstance(given, Learned):
        return "learned"
    if isinstance(given, str) and given not in words:
        raise ValueError(
            f"env.{name}={given} is none of {', '.join(words)}: for a function of yours write "
            f"env.{name}._target_=my_module.my_{name}."
        )
    return given


def _made(id: str, arguments: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:  # noqa: A002
    try:
        # The horizon is the collector's: a time limit of the environment's own would be a second one.
        settings = {"max_episode_steps": -1, "disable_env_checker": True, **_drawing(id), **arguments}
        return gymnasium.make(id, **settings)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"env.id={id} needs a package that is not installed: {error}.") from error
    except (gymnasium.error.Error, ImportError) as error:
        near = difflib.get_close_matches(id, gymnasium.registry, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "gymnasium.pprint_registry() lists all."
        raise ValueError(f"env.id={id} is no task that Gymnasium knows: {hint}") from error
    except TypeError as error:
        raise ValueError(f"env.id={id} cannot be made with env.arguments={dict(arguments)}: {error}.") from error


def _drawing(id: str) -> dict[str, str]:  # noqa: A002
    """The argument that lets a task be drawn; nothing for one that knows no pictures."""
    module, _, name = id.rpartition(":")
    if module:
        import_module(module)  # registers the task
    entry_point = gymnasium.spec(name).entry_point
    maker = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    modes = getattr(maker, "metadata", {}).get("render_modes", ())
    return {"render_mode": PICTURES} if PICTURES in modes else {}


def _observation_space(id: str, space: Space[Any]) -> Box:  # noqa: A002
    if not isinstance(space, Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"env.id={id} observes {space}: only one row of real numbers can be modelled; "
            "wrap the task, for instance in gymnasium.wrappers.FlattenObservation, and register that."
        )
    return space


def _action_space(id: str, space: Space[Any]) -> Box:  # noqa: A002
    if not isinstance(space, Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"env.id={id} takes {space} as actions: choose a task with one row of continuous actions.")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        raise ValueError(
            f"env.id={id} takes unbounded actions, {space}: give each of them a lower and an upper limit "
            "by a wrapper, for instance gymnasium.wrappers.TransformAction, and register that."
        )
    return space


def _own_horizon(environment: gymnasium.Env[Any, Any]) -> int:
    limit = gymnasium.spec(environment.spec.id).max_episode_steps if environment.spec is not None else None
    if limit is None:
        raise ValueError("env.horizon=null, but the task has no time limit of its own: set env.horizon, say to 200.")
    return limit


def _own_control_period(environment: gymnasium.Env[Any, Any]) -> float:
    period = getattr(environment.unwrapped, "dt", None)
    frames = environment.metadata.get("render_fps")
    if period is not None:
        return float(period)
    if not frames:
        raise ValueError(
            "env.control_period=null, but the task has neither dt nor a render_fps: set env.control_period to the "
            "seconds between two control steps, say 0.05."
        )
    return 1.0 / float(frames)
