"""The worker that acts in the real environment."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat

from mbrl_async.envs.task import Interruptible, Task, outcome_metrics
from mbrl_async.runtime.channels import Stream, Versioned
from mbrl_async.types import (
    INPUTS,
    Clock,
    FloatArray,
    Metrics,
    Parameters,
    State,
    StepReport,
    SystemLostError,
    TaskSpec,
    Trajectory,
    require_finite,
)
from mbrl_async.workers.acting import Actor
from mbrl_async.workers.pacing import Pacer

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often in a row the system may be lost in a trajectory before that is the run's end."""


class Collector:
    """One step: one trajectory.

    It ends at the horizon, or before it where the task does.

    Args:
        task: the real system, this worker's own.
        actor: chooses the actions.
        trajectories: where the trajectories go.
        pace: control periods of the run per control period of the task: 1 is real time, 0 does not wait.
        clock: the run's.
        environment_generator: draws the starts of the episodes.

    Raises:
        ValueError: the task's time cannot pass at such a pace.
    """

    publishes = "trajectories"

    def __init__(
        self,
        *,
        task: Task,
        actor: Actor,
        trajectories: Stream[Trajectory],
        pace: NonNegativeFloat,
        clock: Clock,
        environment_generator: np.random.Generator,
    ) -> None:
        if task.spec.real_time and pace != 1:
            raise ValueError(f"pace.factor={pace:g} cannot be used with a robot, whose time passes by itself: use 1.")
        if isinstance(task, Interruptible):
            task.heed(clock.check)
        self._task = task
        self._actor = actor
        self._trajectories = trajectories
        self._control_period = pace * task.spec.control_period
        self._reset_seconds = pace * task.spec.reset_seconds
        self._clock = clock
        self._environment_generator = environment_generator
        self._collected: Trajectory | None = None

    @property
    def pulled(self) -> Mapping[str, int]:
        """Version of what the actor acts with; 0 before there is any."""
        acting = self._actor.acting
        return {self._actor.channel: 0 if acting is None else acting.version}

    def pull(self) -> bool:
        """Let the actor take what is newest; there is always something to collect."""
        self._actor.pull()
        return True

    def step(self) -> StepReport:
        """Collect one trajectory, each control step at its deadline.

        One in which the system was lost is made anew, from a reset and with the same random numbers.

        Raises:
            NonFiniteError: the return is not finite.
            ValueError: the task gave an observation of another size than it says.
            SystemLostError: the system was lost too often.
        """
        before = self.state_dict()
        for _ in range(ATTEMPTS - 1):
            try:
                return self._collect()
            except SystemLostError as error:
                logger.warning("The trajectory does not count, and is made anew: %s", error)
                self.load_state_dict(before)
        return self._collect()

    def _collect(self) -> StepReport:
        spec = self._task.spec
        observations = np.empty((spec.horizon + 1, spec.observation_size), np.float32)
        actions = np.empty((spec.horizon, spec.action_size), np.float32)
        rewards = np.empty(spec.horizon, np.float32)
        acting = np.empty(spec.horizon)  # seconds
        observations[0] = _fitting(self._reset(), spec)
        started = self._clock.now()
        pacer = Pacer(self._clock, self._control_period)
        length, terminated, truncated = 0, False, False
        while length < spec.horizon and not (terminated or truncated):
            began = self._clock.now()
            with self._clock.computing():
                actions[length] = self._actor.act(observations[length])
            acting[length] = self._clock.now() - began
            observation, rewards[length], terminated, truncated = self._task.step(actions[length])
            length += 1
            observations[length] = _fitting(observation, spec)
            pacer.wait()
        ((channel, version),) = self.pulled.items()
        trajectory = Trajectory(observations[: length + 1], actions[:length], rewards[:length], version, terminated)
        require_finite(trajectory.undiscounted_return, f"The return of a trajectory with {channel} {version}")
        self._collected = trajectory
        outcome = outcome_metrics(self._task, trajectory.observations)
        return StepReport(
            _metrics(trajectory, pacer) | self._acting_metrics(acting[:length]) | outcome,
            trajectories=1,
            env_steps=trajectory.length,
            collection_seconds=self._seconds_needed(trajectory, started),
        )

    def result(self) -> Parameters:
        """The trajectory's arrays, and whether it ended for good."""
        trajectory = self._newest()
        return {**trajectory.tensors, "terminated": torch.tensor(trajectory.terminated)}

    def push(self) -> None:
        """Hand the trajectory over."""
        self._trajectories.put(self._newest())

    def state_dict(self) -> State:
        """The generator, the newest trajectory, the actor, and what it acts with."""
        acting = self._actor.acting
        return {
            "environment_generator": self._environment_generator.bit_generator.state,
            "collected": None if self._collected is None else self._collected.state_dict(),
            "actor": self._actor.state_dict(),
            INPUTS: None if acting is None else acting.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        collected, acting = state["collected"], state.get(INPUTS)
        self._environment_generator.bit_generator.state = state["environment_generator"]
        self._collected = None if collected is None else Trajectory.from_state_dict(collected)
        self._actor.load_state_dict(state["actor"])
        self._actor.take(None if acting is None else Versioned.from_state_dict(acting))

    def close(self) -> None:
        """Close the task."""
        self._task.close()

    def _reset(self) -> FloatArray:
        """The first observation (O,), after the time that a reset takes at least."""
        began = self._clock.now()
        observation = self._task.reset(self._environment_generator)
        if self._reset_seconds > 0:
            self._clock.sleep_until(began + self._reset_seconds)
        return observation

    def _acting_metrics(self, seconds: NDArray[np.float64]) -> Metrics:
        """How long it took to compute the actions; longer than a control period is too long, if there is one."""
        too_long = (seconds > self._control_period) & (self._control_period > 0)
        return {
            "acting_p50_ms": float(1000 * np.median(seconds)),
            "acting_max_ms": float(1000 * seconds.max()),
            "acting_misses": float(too_long.sum()),
        }

    def _newest(self) -> Trajectory:
        assert self._collected is not None, "result and push come after step"
        return self._collected

    def _seconds_needed(self, trajectory: Trajectory, started: float) -> float:
        """What the trajectory that began at `started` had to take: without a period, what it did take."""
        if self._control_period == 0:
            return self._clock.now() - started
        return self._reset_seconds + trajectory.length * self._control_period


def _fitting(observation: FloatArray, spec: TaskSpec) -> FloatArray:
    """The observation, (O,): broadcasting would let one of another size pass."""
    if observation.shape != (spec.observation_size,):
        raise ValueError(
            f"The task gave an observation of shape {observation.shape}: its spec says ({spec.observation_size},)."
        )
    return observation


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
