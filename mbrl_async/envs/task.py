"""What every task is: a reset, a control step, and one reward and termination for reality and imagination alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl_async.types import FloatArray, Metrics, TaskSpec, TaskStep


class Task(Protocol):
    """A real system with a time limit, the horizon.

    One episode reads:

        observation = task.reset(generator)
        for _ in range(task.spec.horizon):
            observation, reward, terminated, truncated = task.step(policy(observation))
            if terminated or truncated:
                break

    A task holds the state of one episode, so two users need two tasks.
    """

    @property
    def spec(self) -> TaskSpec:
        """Sizes, horizon and control period."""

    def reset(self, generator: np.random.Generator) -> FloatArray:
        """Start an episode from a state drawn with `generator`, whatever happened before.

        Returns:
            The first observation, (O,).
        """

    def step(self, action: FloatArray) -> TaskStep:
        """Act for one control period.

        Args:
            action: As a policy sampled it, (A,); it is limited by `clip_action` and mapped onto the actuators' range.

        Raises:
            RuntimeError: No episode was started, or it has ended.
            ValueError: The action has a wrong shape or is not finite.
            NonFiniteError: The system left the range in which it can be simulated.
            SystemLostError: The system does not answer any more; the episode does not count.
        """

    def reward(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor:
        """Reward of many transitions at once; `step` asks here too, so there is no second definition.

        Args:
            observations: Before the step, (..., O), on any device.
            actions: As executed, hence within [-1, 1], (..., A).
            outcomes: The next observations and, behind them, what `spec.learned` names as a model predicts it,
                (..., O + E).

        Returns:
            (...), in the precision of the observations.
        """

    def termination(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor | None:
        """Which of many transitions, given as to `reward`, end the task for good: bool (...).

        None if none ever can: imagination is then spared the question.
        """

    def close(self) -> None:
        """Give back what the task holds outside Python."""


@runtime_checkable
class Drawable(Protocol):
    """A task that can be seen; most can not."""

    def draw(self) -> NDArray[np.uint8]:
        """A picture of the present state, (rows, columns, 3).

        Raises:
            RuntimeError: there is nothing here to draw with.
        """


@runtime_checkable
class Assessed(Protocol):
    """A task that says of a trajectory more than its rewards do."""

    def outcome_metrics(self, observations: FloatArray) -> Metrics:
        """Of the trajectory that was just made, with observations (T + 1, O): a number a name (docs/metrics.md)."""


@runtime_checkable
class Interruptible(Protocol):
    """A task that waits for a real system, and must not do so longer than the run lasts."""

    def heed(self, check: Callable[[], None]) -> None:
        """Call `check` often in every wait from now on; it raises `Interrupted` when the run is over."""


def outcome_metrics(task: Task, observations: FloatArray) -> Metrics:
    """What the task says of the trajectory that was just made, with observations (T + 1, O)."""
    return task.outcome_metrics(observations) if isinstance(task, Assessed) else {}


def start_observations(task: Task, count: int, generator: np.random.Generator) -> Tensor:
    """Independent draws of the real reset distribution, where imagined rollouts start.

    Ends the episode that `task` is in: use a task of your own, not the collector's.

    Returns:
        (count, O).

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count={count} start observations cannot be drawn: ask for at least 1.")
    return torch.from_numpy(np.stack([task.reset(generator) for _ in range(count)]))  # (count, O)
