"""The control step that all simulated tasks share; a task adds its physics, its reward and its termination."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from mbrl_async.types import FloatArray, NonFiniteError, TaskSpec, TaskStep, clip_action


class SimulatedTask(ABC):
    """A `Task` whose physics is a simulator: checks what comes in and what goes out, and asks the reward.

    A task defines `begin_episode`, `advance`, `reward` and, if it can end before its horizon, `termination`.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        self._observation: Tensor | None = None  # (O,), of the running episode
        self._steps = 0

    @property
    def spec(self) -> TaskSpec:
        """Sizes, horizon and control period."""
        return self._spec

    @abstractmethod
    def begin_episode(self, generator: np.random.Generator) -> FloatArray:
        """Put the physics into a start state; the first observation, (O,)."""

    @abstractmethod
    def advance(self, action: FloatArray) -> FloatArray:
        """Apply an action within [-1, 1], (A,), for one control period; the next observation, (O,).

        Raises:
            FloatingPointError: The physics diverged.
        """

    @abstractmethod
    def reward(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor:
        """See `Task.reward`."""

    def termination(self, _observations: Tensor, _actions: Tensor, _outcomes: Tensor, /) -> Tensor | None:
        """See `Task.termination`; by default nothing ends the task before its horizon."""
        return None

    def judge(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> tuple[float, bool, bool]:
        """Reward, termination and truncation of the step that was just made, from (O,), executed (A,), (O,)."""
        termination = self.termination(observation, action, next_observation)
        terminated = termination is not None and bool(termination)
        return float(self.reward(observation, action, next_observation)), terminated, False

    def close(self) -> None:  # noqa: B027  (most physics hold nothing outside Python)
        """Give back what the physics holds outside Python."""

    def reset(self, generator: np.random.Generator) -> FloatArray:
        """See `Task.reset`."""
        observation = self.begin_episode(generator)
        self._observation = torch.from_numpy(observation.copy())  # the caller may write into the other
        self._steps = 0
        return observation

    def step(self, action: FloatArray) -> TaskStep:
        """See `Task.step`."""
        if self._observation is None:
            raise RuntimeError(f"{self._name} has no episode to step in: call reset first.")
        executed = clip_action(self._checked(action))  # (A,)
        self._steps += 1
        next_observation = self._advance_or_refuse(executed.numpy())
        following = torch.from_numpy(next_observation.copy())  # the caller may write into the other
        step = TaskStep(next_observation, *self.judge(self._observation, executed, following))
        self._observation = None if step.terminated or step.truncated else following
        return step

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _checked(self, action: FloatArray) -> Tensor:
        array = np.asarray(action, dtype=np.float32)
        if array.shape != (self.spec.action_size,):
            raise ValueError(
                f"{self._name} was given an action of shape {array.shape}: it takes ({self.spec.action_size},)."
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"{self._name} was given the action {array} at step {self._steps + 1}: every entry must be finite; "
                "look at the policy that sampled it."
            )
        return torch.from_numpy(array)

    def _advance_or_refuse(self, action: FloatArray) -> FloatArray:
        try:
            observation = self.advance(action)
            if not np.isfinite(observation).all():
                raise FloatingPointError("the observation is not finite")
        except FloatingPointError as error:
            self._observation = None  # such an episode cannot go on
            raise NonFiniteError(
                f"{self._name} diverged at step {self._steps}: {error}; "
                "look at the actions of this episode and at the state that it started from."
            ) from error
        return observation
