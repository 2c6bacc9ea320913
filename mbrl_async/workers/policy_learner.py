"""The worker that improves the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import numpy as np
import torch

from mbrl_async.algorithms.imagination import ImaginedTask, Model, StartObservations
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.envs.task import Task, start_observations
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.channels import Latest, Versioned
from mbrl_async.types import INPUTS, Clock, Metrics, Parameters, State, StepReport, copy_of


class PolicyImprovement(Protocol):
    """An algorithm that improves a policy in the model."""

    def require_compatible(self, members: int) -> None:
        """Refuse, with a ValueError, an ensemble of so many members that it cannot be used with."""

    def improve(
        self,
        policy: GaussianMLP,
        model: Model,
        task: ImaginedTask,
        starts: StartObservations,
        generator: torch.Generator,
        check_interrupted: Callable[[], None],
    ) -> Metrics:
        """Improve the policy in place by one step; `Interrupted` may leave it."""

    def published(self, policy: GaussianMLP) -> Parameters:
        """What those who act are given of the improved policy."""

    def state_dict(self) -> State:
        """What it remembers from step to step, as a copy."""

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""


class PolicyLearner:
    """One step: one policy improvement in the newest model.

    Args:
        policy: what to improve.
        ensemble: receives the published model.
        improvement: the algorithm.
        task: gives rewards, terminations and start states; this worker's own.
        starts: where imagined rollouts start: at a "reset" of the task, drawn anew for each, or where one of the
            "stored" real trajectories began, for a task that cannot be reset for imagination.
        models: where the model comes from.
        policies: where the policy goes.
        clock: the run's.
        environment_generator: draws the start states.
        generator: draws everything else that is imagined, stored starts included, on the learner's device.

    Raises:
        ValueError: the algorithm cannot be used with such an ensemble, or the task not with such starts.
    """

    publishes = "policy"

    def __init__(
        self,
        *,
        policy: GaussianMLP,
        ensemble: Ensemble,
        improvement: PolicyImprovement,
        task: Task,
        starts: Literal["reset", "stored"],
        models: Latest,
        policies: Latest,
        clock: Clock,
        environment_generator: np.random.Generator,
        generator: torch.Generator,
    ) -> None:
        improvement.require_compatible(ensemble.members)
        if starts == "reset" and task.spec.real_time:
            raise ValueError("starts=reset would move a robot for every imagined rollout: use algorithm.starts=stored.")
        self._policy = policy
        self._ensemble = ensemble
        self._predictor = ensemble.predictor()
        self._improvement = improvement
        self._task = task
        self._starts = starts
        self._models = models
        self._policies = policies
        self._clock = clock
        self._environment_generator = environment_generator
        self._generator = generator
        self._imagining: Versioned | None = None
        self._updates = 0

    @property
    def pulled(self) -> Mapping[str, int]:
        """Version of the model that imagines."""
        return {"model": 0 if self._imagining is None else self._imagining.version}

    def pull(self) -> bool:
        """Take the newest model; False as long as there is none."""
        newest = self._models.get()
        if newest is None:
            return False
        if newest is not self._imagining:
            self._take(newest)
        return True

    def step(self) -> StepReport:
        """Improve the policy once.

        Raises:
            Interrupted: the run is over.
            NonFiniteError: something imagined, or a parameter, is not finite.
        """
        metrics = self._improvement.improve(
            self._policy, self._predictor, self._task, self._draw_starts, self._generator, self._clock.check
        )
        self._updates += 1
        return StepReport(metrics | {"updates": float(self._updates)})

    def result(self) -> Parameters:
        """The parameters that the policy acts with."""
        return self._improvement.published(self._policy)

    def push(self) -> None:
        """Publish the policy."""
        self._policies.put(self.result())

    def state_dict(self) -> State:
        """Policy, improvement, generators and count, and the model that imagines."""
        return {
            "policy": copy_of(self._policy.state_dict()),
            "improvement": self._improvement.state_dict(),
            "environment_generator": self._environment_generator.bit_generator.state,
            "generator": self._generator.get_state(),
            "updates": self._updates,
            INPUTS: None if self._imagining is None else self._imagining.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        imagining = state.get(INPUTS)
        self._policy.load_state_dict(state["policy"])
        self._improvement.load_state_dict(state["improvement"])
        self._environment_generator.bit_generator.state = state["environment_generator"]
        self._generator.set_state(state["generator"])
        self._updates = state["updates"]
        self._imagining = None
        if imagining is not None:
            self._take(Versioned.from_state_dict(imagining))

    def close(self) -> None:
        """Close the task."""
        self._task.close()

    def _take(self, model: Versioned) -> None:
        self._ensemble.load_state_dict(model.parameters)
        self._predictor = self._ensemble.predictor()
        self._imagining = model

    def _draw_starts(self, count: int) -> torch.Tensor:
        """Start observations (count, O) on the learner's device."""
        if self._starts == "stored":
            return self._ensemble.starts.sample(count, self._generator)
        return start_observations(self._task, count, self._environment_generator).to(self._generator.device)
