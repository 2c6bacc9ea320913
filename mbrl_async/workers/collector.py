"""The worker that acts in the real environment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import NonNegativeFloat

from mbrl_async.envs.task import Task
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.channels import Latest, Stream, Versioned
from mbrl_async.types import (
    INPUTS,
    Clock,
    FloatArray,
    Metrics,
    Parameters,
    State,
    StepReport,
    Trajectory,
    require_finite,
)
from mbrl_async.workers.pacing import Pacer


class Collector:
    """One step: one trajectory with the newest policy, or uniformly random while there is none.

    Args:
        task: the real system, this worker's own.
        policy: receives the published parameters.
        policies: where they come from.
        trajectories: where the trajectories go.
        pace: control periods of the run per control period of the task: 1 is real time, 0 does not wait.
        clock: the run's.
        environment_generator: draws the starts of the episodes.
        action_generator: draws the actions.
    """

    publishes = "trajectories"

    def __init__(
        self,
        *,
        task: Task,
        policy: GaussianMLP,
        policies: Latest,
        trajectories: Stream[Trajectory],
        pace: NonNegativeFloat,
        clock: Clock,
        environment_generator: np.random.Generator,
        action_generator: torch.Generator,
    ) -> None:
        self._task = task
        self._policy = policy
        self._policies = policies
        self._trajectories = trajectories
        self._control_period = pace * task.spec.control_period
        self._clock = clock
        self._environment_generator = environment_generator
        self._action_generator = action_generator
        self._acting: Versioned | None = None
        self._collected: Trajectory | None = None

    @property
    def pulled(self) -> Mapping[str, int]:
        """Version of the policy that acts; 0 is the random one."""
        return {"policy": self._version}

    @property
    def _version(self) -> int:
        return 0 if self._acting is None else self._acting.version

    def pull(self) -> bool:
        """Take the newest policy; there is always something to collect."""
        newest = self._policies.get()
        if newest is not None and newest is not self._acting:
            self._take(newest)
        return True

    def step(self) -> StepReport:
        """Collect one trajectory, each control step at its deadline.

        Raises:
            NonFiniteError: the return is not finite.
        """
        spec = self._task.spec
        observations = np.empty((spec.horizon + 1, spec.observation_size), np.float32)
        actions = np.empty((spec.horizon, spec.action_size), np.float32)
        rewards = np.empty(spec.horizon, np.float32)
        observations[0] = self._task.reset(self._environment_generator)
        started = self._clock.now()
        pacer = Pacer(self._clock, self._control_period)
        for t in range(spec.horizon):
            actions[t] = self._act(observations[t])
            observations[t + 1], rewards[t] = self._task.step(actions[t])
            pacer.wait()
        trajectory = Trajectory(observations, actions, rewards, self._version)
        require_finite(trajectory.undiscounted_return, f"The return of a trajectory with policy {self._version}")
        self._collected = trajectory
        return StepReport(
            _metrics(trajectory, pacer),
            trajectories=1,
            env_steps=trajectory.length,
            collection_seconds=self._seconds_needed(started),
        )

    def result(self) -> Parameters:
        """The trajectory's arrays."""
        return self._newest().tensors

    def push(self) -> None:
        """Hand the trajectory over."""
        self._trajectories.put(self._newest())

    def state_dict(self) -> State:
        """The generators, the newest trajectory and the acting policy."""
        return {
            "environment_generator": self._environment_generator.bit_generator.state,
            "action_generator": self._action_generator.get_state(),
            "collected": None if self._collected is None else self._collected.state_dict(),
            INPUTS: None if self._acting is None else self._acting.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        collected, acting = state["collected"], state.get(INPUTS)
        self._environment_generator.bit_generator.state = state["environment_generator"]
        self._action_generator.set_state(state["action_generator"])
        self._collected = None if collected is None else Trajectory.from_state_dict(collected)
        self._acting = None
        if acting is not None:
            self._take(Versioned.from_state_dict(acting))

    def close(self) -> None:
        """Close the task."""
        self._task.close()

    def _take(self, policy: Versioned) -> None:
        self._policy.load_state_dict(policy.parameters)
        self._acting = policy

    def _newest(self) -> Trajectory:
        assert self._collected is not None, "result and push come after step"
        return self._collected

    def _seconds_needed(self, started: float) -> float:
        """What the trajectory that began at `started` had to take: without a period, what it did take."""
        if self._control_period == 0:
            return self._clock.now() - started
        return self._task.spec.horizon * self._control_period

    @torch.no_grad()
    def _act(self, observation: FloatArray) -> FloatArray:
        """An action (A,) as sampled."""
        size = self._task.spec.action_size
        if self._version == 0:
            action = 2 * torch.rand(size, generator=self._action_generator) - 1
        else:
            noise = torch.randn(size, generator=self._action_generator)
            # A copy in torch's memory: how products round may depend on how their operands are aligned.
            action = self._policy(torch.tensor(observation)).sample(noise)
        array: FloatArray = action.numpy()
        return array


def _metrics(trajectory: Trajectory, pacer: Pacer) -> Metrics:
    p50, p99, longest = np.percentile(1000 * np.asarray(pacer.lateness), (50, 99, 100))
    return {
        "return": trajectory.undiscounted_return,
        "length": float(trajectory.length),
        "policy_version": float(trajectory.policy_version),
        "lateness_p50_ms": float(p50),
        "lateness_p99_ms": float(p99),
        "lateness_max_ms": float(longest),
        "deadline_misses": float(pacer.misses),
    }
