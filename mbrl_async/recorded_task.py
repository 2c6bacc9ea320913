"""A real system that cannot be asked twice, answered for by what it once said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from torch import Tensor

from mbrl_async.envs.task import Task, outcome_metrics
from mbrl_async.results import read_trajectories
from mbrl_async.runtime.schedule import COLLECT, role_of
from mbrl_async.runtime.trace import read_trace
from mbrl_async.types import FloatArray, Metrics, PerCollector, TaskSpec, TaskStep, Trajectory


class RecordedTask:
    """Observes and rewards what was recorded, whatever the actions: whoever replays has to compare these.

    Args:
        task: says what the recorded system was; is never acted on.
        file: the trajectories of the run, in the order in which they came.
        trace: the file of its trace, which says whose they were.
        collector: the name of whose this task was.
    """

    def __init__(
        self, *, task: Task, file: str, trace: str, collector: Annotated[str, PerCollector(distinct=True)]
    ) -> None:
        self._task = task
        collected = [record.worker for record in read_trace(Path(trace)) if role_of(record.worker) == COLLECT]
        trajectories = zip(collected, read_trajectories(Path(file)), strict=True)
        self._trajectories = iter([trajectory for worker, trajectory in trajectories if worker == collector])
        self._steps: Iterator[TaskStep] = iter(())

    @property
    def spec(self) -> TaskSpec:
        """That of the recorded system."""
        return self._task.spec

    def reset(self, generator: np.random.Generator) -> FloatArray:  # noqa: ARG002  (nothing is left to chance)
        """The first observation of the next trajectory.

        Raises:
            IndexError: there is no other.
        """
        trajectory = next(self._trajectories, None)
        if trajectory is None:
            raise IndexError("No more trajectories were recorded: replay no further than the trace goes.")
        self._steps = _steps_of(trajectory, self.spec.horizon)
        first: FloatArray = trajectory.observations[0]
        return first

    def step(self, action: FloatArray) -> TaskStep:  # noqa: ARG002
        """What followed.

        Raises:
            IndexError: the trajectory is over.
        """
        following = next(self._steps, None)
        if following is None:
            raise IndexError("The recorded trajectory is over: reset before the next step.")
        return following

    def reward(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor:
        """See `Task.reward`."""
        return self._task.reward(observations, actions, outcomes)

    def termination(self, observations: Tensor, actions: Tensor, outcomes: Tensor, /) -> Tensor | None:
        """See `Task.termination`."""
        return self._task.termination(observations, actions, outcomes)

    def outcome_metrics(self, observations: FloatArray) -> Metrics:
        """See `Assessed`: what the task says of what was recorded."""
        return outcome_metrics(self._task, observations)

    def close(self) -> None:
        """Close the task."""
        self._task.close()


def _steps_of(trajectory: Trajectory, horizon: int) -> Iterator[TaskStep]:
    cut_off = trajectory.length < horizon and not trajectory.terminated
    for t in range(trajectory.length):
        last = t + 1 == trajectory.length
        reward = float(trajectory.rewards[t])
        yield TaskStep(trajectory.observations[t + 1], reward, last and trajectory.terminated, last and cut_off)
