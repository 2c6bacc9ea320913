"""A bench for workers: small policies, models and tasks, and a collector and a model learner on channels."""

from __future__ import annotations

import numpy as np
import torch

from mbrl_async.dynamics.buffer import TransitionBuffer
from mbrl_async.dynamics.early_stopping import EarlyStopping
from mbrl_async.dynamics.ensemble import Ensemble
from mbrl_async.dynamics.outputs import Point
from mbrl_async.dynamics.training import EnsembleTrainer
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.types import FloatArray, Metrics, SystemLostError, TaskSpec, Trajectory
from mbrl_async.workers.acting import FirstActions, PolicyActor
from mbrl_async.workers.collector import Collector
from mbrl_async.workers.model_learner import ModelLearner

HORIZON = 10
PERIOD = 0.25


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_policy(seed: int = 0) -> GaussianMLP:
    return GaussianMLP(
        observation_size=4,
        action_size=2,
        hidden=[8],
        initial_log_std=-1.0,
        minimum_log_std=-10.0,
        generator=generator(seed),
        device="cpu",
    )


def make_ensemble(seed: int = 0) -> Ensemble:
    return Ensemble(
        observation_size=4,
        action_size=2,
        signals=0,
        members=2,
        hidden=[8],
        minimum_std=1e-3,
        observation_limit=100.0,
        observation_deviations=None,
        output=Point(),
        precision="float32",
        generator=generator(seed),
        device="cpu",
    )


def make_buffer(validation_fraction: float = 0.2) -> TransitionBuffer:
    return TransitionBuffer(
        members=2,
        capacity=100,
        validation_fraction=validation_fraction,
        observation_size=4,
        action_size=2,
        signals=0,
        generator=generator(),
        device="cpu",
    )


class Bench:
    """A collector and a model learner on the same channels."""

    def __init__(
        self,
        task: LinearQuadratic | None = None,
        pace: float = 1.0,
        first_actions: FirstActions = "random",
        actor: type[PolicyActor] = PolicyActor,
    ) -> None:
        self.stop = StopSignal()
        self.clock = VirtualClock(self.stop)
        self.trajectories: Stream[Trajectory] = Stream()
        self.policies, self.models = Latest(), Latest()
        self.task = task or LinearQuadratic(horizon=HORIZON, control_period=PERIOD)
        self.collector = Collector(
            task=self.task,
            actor=actor(
                policy=make_policy(), policies=self.policies, first_actions=first_actions, action_generator=generator()
            ),
            trajectories=self.trajectories,
            pace=pace,
            clock=self.clock,
            environment_generator=np.random.default_rng(0),
        )
        ensemble = make_ensemble()
        self.learner = ModelLearner(
            ensemble=ensemble,
            trainer=EnsembleTrainer(ensemble=ensemble, learning_rate=1e-3, batch_size=8, generator=generator()),
            early_stopping=EarlyStopping(members=2, weight=0.4),
            buffer=make_buffer(),
            trajectories=self.trajectories,
            models=self.models,
            clock=self.clock,
            learned=(),
            device="cpu",
        )

    def collect(self) -> Trajectory:
        assert self.collector.pull()
        self.collector.step()
        self.collector.push()
        return self.trajectories.history[-1]


class EndsAfterThree(LinearQuadratic):
    """Terminates, or is cut off, after three steps."""

    def __init__(self, terminates: bool) -> None:
        super().__init__(horizon=HORIZON, control_period=PERIOD)
        self._terminates = terminates

    def judge(self, observation, action, next_observation):
        reward, *_ = super().judge(observation, action, next_observation)
        return reward, self._terminates and self._steps == 3, not self._terminates and self._steps == 3


class RobotLike(LinearQuadratic):
    """Takes a second to reset, says how many observations it had, and is lost when told to."""

    def __init__(self, lost_at: tuple[int, ...] = (), *, real_time: bool = False) -> None:
        super().__init__(horizon=HORIZON, control_period=PERIOD)
        self._spec = TaskSpec(4, 2, HORIZON, PERIOD, reset_seconds=1.0, real_time=real_time)
        self._lost_at = list(lost_at)

    def heed(self, check) -> None:
        self._check = check

    def begin_episode(self, generator: np.random.Generator) -> FloatArray:
        self._check()
        return super().begin_episode(generator)

    def advance(self, action: FloatArray) -> FloatArray:
        if self._lost_at and self._steps == self._lost_at[0]:
            raise SystemLostError(f"gone at step {self._lost_at.pop(0)}")
        return super().advance(action)

    def outcome_metrics(self, observations: FloatArray) -> Metrics:
        return {"rows": float(len(observations))}
