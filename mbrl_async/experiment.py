"""From a configuration to everything that runs: the only file that sees both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from mbrl_async.config import ConfigError, Settings, build, validate
from mbrl_async.envs.task import Task
from mbrl_async.policies.gaussian_mlp import GaussianMLP
from mbrl_async.runtime.backend import Backend
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, WORKERS, Schedule
from mbrl_async.runtime.stop import StopRule, StopSignal
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Clock, TaskSpec, Trajectory


@dataclass(frozen=True)
class Channels:
    """collect --trajectories--> learn_model --models--> improve_policy --policies--> collect."""

    trajectories: Stream[Trajectory]
    models: Latest
    policies: Latest


@dataclass(frozen=True)
class Experiment:
    """Everything that a run needs; `backend.run(makers, schedule, rule, ...)` runs it."""

    settings: Settings
    channels: Channels
    makers: Mapping[str, WorkerMaker]
    schedule: Schedule
    rule: StopRule
    backend: Backend


class Generators:
    """The random generators of one worker: nobody else draws from them, so no other worker can disturb it."""

    def __init__(self, seed: int, worker: str) -> None:
        sequences = np.random.SeedSequence(seed).spawn(len(WORKERS))
        self._sequence = sequences[WORKERS.index(worker)]

    def numpy(self) -> np.random.Generator:
        """A new generator."""
        return np.random.default_rng(self._sequence.spawn(1)[0])

    def torch(self, device: str) -> torch.Generator:
        """A new generator on the device."""
        seed = int(self._sequence.spawn(1)[0].generate_state(1, np.uint64)[0])
        return torch.Generator(device).manual_seed(seed)


def build_experiment(cfg: DictConfig) -> Experiment:
    """Check the configuration, and make of it what can be made before the run.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    settings = validate(cfg)
    schedule: Schedule = build(cfg.schedule)
    _require_possible(settings, schedule)
    channels = Channels(Stream(), Latest(), Latest())
    makers = _makers(cfg, _Components(cfg, settings, _spec(cfg)), channels)
    _rehearse(makers)
    return Experiment(
        settings=settings,
        channels=channels,
        makers=makers,
        schedule=schedule,
        rule=build(cfg.stop),
        backend=build(cfg.backend),
    )


class _Components:
    """Makes what workers consist of, each worker its own."""

    def __init__(self, cfg: DictConfig, settings: Settings, spec: TaskSpec) -> None:
        self.settings = settings
        self._sizes = {"observation_size": spec.observation_size, "action_size": spec.action_size}
        self.task: Callable[[], Task] = _maker(cfg.env)
        self.improvement = _maker(cfg.algorithm.improvement)
        self._policy = _maker(cfg.policy)
        self._ensemble = _maker(cfg.dynamics.ensemble)
        self._trainer = _maker(cfg.dynamics.training)
        self._early_stopping = _maker(cfg.dynamics.early_stopping)
        self._buffer = _maker(cfg.dynamics.buffer)

    def policy(self, generators: Generators, device: str) -> GaussianMLP:
        policy: GaussianMLP = self._policy(**self._sizes, generator=generators.torch("cpu"), device=device)
        return policy

    def ensemble(self, generators: Generators, device: str) -> Any:
        return self._ensemble(**self._sizes, generator=generators.torch("cpu"), device=device)

    def model_learning(self, generators: Generators, device: str) -> dict[str, Any]:
        """The ensemble and what trains it."""
        ensemble = self.ensemble(generators, device)
        return {
            "ensemble": ensemble,
            "trainer": self._trainer(ensemble=ensemble, generator=generators.torch("cpu")),
            "early_stopping": self._early_stopping(members=ensemble.members),
            "buffer": self._buffer(
                members=ensemble.members, **self._sizes, generator=generators.torch("cpu"), device=device
            ),
        }


def _makers(cfg: DictConfig, components: _Components, channels: Channels) -> dict[str, WorkerMaker]:
    """The wiring: who is made of what, and who talks to whom.

    Raises:
        ConfigError: the algorithm names other workers than those that are wired here.
    """
    if set(cfg.algorithm.workers) != set(WORKERS):
        raise ConfigError(f"algorithm.workers={sorted(cfg.algorithm.workers)} must name {', '.join(WORKERS)}.")
    worker = {name: _maker(node) for name, node in cfg.algorithm.workers.items()}
    settings = components.settings
    seed, device = settings.seed, settings.device

    def collector(clock: Clock) -> Worker:
        """Policies in, trajectories out."""
        generators = Generators(seed, COLLECT)
        made: Worker = worker[COLLECT](
            task=components.task(),
            policy=components.policy(generators, "cpu"),
            policies=channels.policies,
            trajectories=channels.trajectories,
            pace=settings.pace.factor,
            clock=clock,
            environment_generator=generators.numpy(),
            action_generator=generators.torch("cpu"),
        )
        return made

    def model_learner(clock: Clock) -> Worker:
        """Trajectories in, models out."""
        made: Worker = worker[LEARN_MODEL](
            **components.model_learning(Generators(seed, LEARN_MODEL), device),
            trajectories=channels.trajectories,
            models=channels.models,
            clock=clock,
            device=device,
        )
        return made

    def policy_learner(clock: Clock) -> Worker:
        """Models in, policies out."""
        generators = Generators(seed, IMPROVE_POLICY)
        ensemble, improvement = components.ensemble(generators, device), components.improvement()
        improvement.require_compatible(ensemble.members)
        made: Worker = worker[IMPROVE_POLICY](
            policy=components.policy(generators, device),
            ensemble=ensemble,
            improvement=improvement,
            task=components.task(),
            models=channels.models,
            policies=channels.policies,
            clock=clock,
            environment_generator=generators.numpy(),
            generator=generators.torch(device),
        )
        return made

    return {COLLECT: collector, LEARN_MODEL: model_learner, IMPROVE_POLICY: policy_learner}


def _maker(node: DictConfig) -> Callable[..., Any]:
    """Resolve a component's configuration now, and make it, with all that it contains, where it will be used."""
    resolved = OmegaConf.to_container(node, resolve=True)
    # Partial: Hydra would put the arguments into a configuration, and so copy what workers share.
    return lambda **arguments: build(DictConfig(resolved), _partial_=True)(**arguments)


def _spec(cfg: DictConfig) -> TaskSpec:
    task: Task = build(cfg.env)
    spec = task.spec
    task.close()
    return spec


def _require_possible(settings: Settings, schedule: Schedule) -> None:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda cannot be used: torch sees no GPU here; use device=cpu.")
    if settings.pace.factor == 0 and schedule.collects_without_limit:
        raise ConfigError(
            "pace.factor=0 lets the collector of this schedule run away from the learners: use a factor above 0 "
            "(0.1 is ten times as fast as real time; with backend=simulated no factor waits), or schedule=sync."
        )


def _rehearse(makers: Mapping[str, WorkerMaker]) -> None:
    """Make every worker once, so that what cannot be made is refused before the run."""
    clock = VirtualClock(StopSignal())
    for name, make in makers.items():
        try:
            make(clock).close()
        except (ConfigError, ValueError, TypeError) as error:
            raise ConfigError(f"{name} cannot be made: {error}") from error
