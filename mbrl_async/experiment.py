"""From a configuration to everything that runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from mbrl_async.collectors import build_first, require_one_each
from mbrl_async.config import ConfigError, build, require_read, validate
from mbrl_async.envs.task import Task
from mbrl_async.runtime.backend import Backend
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, WORKERS, Schedule
from mbrl_async.runtime.simulated import Simulated
from mbrl_async.runtime.stop import StopRule, StopSignal
from mbrl_async.runtime.worker import WorkerMaker
from mbrl_async.settings import Settings
from mbrl_async.types import TaskSpec
from mbrl_async.wiring import Channels, worker_makers

USERS = {"dynamics": LEARN_MODEL, "policy": IMPROVE_POLICY}
"""Group of settings -> the worker without which nobody reads them."""


@dataclass(frozen=True)
class Experiment:
    """Everything that a run needs; `backend.run(makers, schedule, rule, ...)` runs it."""

    settings: Settings
    channels: Channels
    makers: Mapping[str, WorkerMaker]
    schedule: Schedule
    rule: StopRule
    backend: Backend


def build_experiment(cfg: DictConfig) -> Experiment:
    """Check the configuration, and make of it what can be made before the run.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    settings = validate(cfg)
    configuration: Any = OmegaConf.to_container(cfg, resolve=True)
    workers = configuration["algorithm"]["workers"]
    _require_workers(workers)
    require_one_each(configuration, settings.collectors)
    schedule = _schedule_of(workers, settings.collectors, build(cfg.schedule))
    _require_possible(settings, schedule, workers)
    spec, backend = _spec(cfg), build(cfg.backend)
    _require_waiting(spec, backend)
    channels = Channels(Stream(), Latest(), Latest())
    makers = worker_makers(configuration, settings.collectors, spec, channels)
    _rehearse(makers)
    require_read(cfg)
    return Experiment(
        settings=settings,
        channels=channels,
        makers=makers,
        schedule=schedule,
        rule=build(cfg.stop),
        backend=backend,
    )


def without_effect(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """A sentence for each override of a setting that nobody reads, because a worker takes no part."""
    absent = set(WORKERS) - set(cfg.algorithm.workers)
    phases = str(_without(OmegaConf.to_container(cfg.schedule, resolve=False), absent))
    sentences = []
    for override in overrides:
        group, *below = re.split(r"[./@]", override.lstrip("+~").partition("=")[0])
        counts_absent = group == "iteration" and below and f"${{iteration.{below[0]}}}" not in phases
        if USERS.get(group) in absent or counts_absent:
            sentences.append(f"{override} has no effect: this algorithm has no {' and no '.join(sorted(absent))}.")
    return sentences


def _without(node: Any, absent: Collection[str]) -> Any:
    """Phases without the workers that take no part."""
    if isinstance(node, Mapping):
        return {name: _without(below, absent) for name, below in node.items() if name not in absent}
    return [_without(each, absent) for each in node] if isinstance(node, list) else node


def _require_workers(workers: Collection[str]) -> None:
    if COLLECT not in workers or not set(workers) <= set(WORKERS):
        raise ConfigError(
            f"algorithm.workers={sorted(workers)} cannot be used: name {COLLECT}, and others of {', '.join(WORKERS)}."
        )


def _schedule_of(workers: Collection[str], collectors: int, schedule: Schedule) -> Schedule:
    """The schedule of those who take part."""
    try:
        return schedule.restricted_to(workers).shared_among(collectors)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _spec(cfg: DictConfig) -> TaskSpec:
    task: Task = build_first(cfg.env)
    spec = task.spec
    task.close()
    return spec


def _require_possible(settings: Settings, schedule: Schedule, workers: Mapping[str, Any]) -> None:
    if settings.computes_on == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda cannot be used: torch sees no GPU here; use device=cpu.")
    if settings.pace.factor == 0 and schedule.collects_without_limit:
        raise ConfigError(
            "pace.factor=0 lets the collector of this schedule run away from the learners: use a factor above 0 "
            "(0.1 is ten times as fast as real time; with backend=simulated no factor waits), or schedule=sync."
        )
    if schedule.improves_without_end and not _learns_on_policy(workers) and settings.stop.get("seconds") is None:
        raise ConfigError(
            f"This schedule has a phase of {IMPROVE_POLICY}: .inf in which nobody collects, so the run would not end: "
            "give it a number, or set stop.seconds."
        )
    if _learns_on_policy(workers) and schedule.concurrent(COLLECT, IMPROVE_POLICY):
        raise ConfigError(
            "This algorithm learns from data of the newest policy alone, so nothing may be collected while the policy "
            "is improved, as this schedule would have it: use schedule=sync."
        )


def _require_waiting(spec: TaskSpec, backend: Backend) -> None:
    if spec.real_time and isinstance(backend, Simulated):
        raise ConfigError(
            "backend=simulated would not wait for this robot, whose time passes by itself: use backend=threads or "
            "backend=processes, or env/robot=stepped."
        )


def _learns_on_policy(workers: Mapping[str, Any]) -> bool:
    """Whether the policy's worker says so of itself."""
    node = workers.get(IMPROVE_POLICY)
    return node is not None and getattr(get_class(node["_target_"]), "on_policy", False)


def _rehearse(makers: Mapping[str, WorkerMaker]) -> None:
    """Make every worker once, so that what cannot be made is refused before the run."""
    clock = VirtualClock(StopSignal())
    learners = []
    for name, make in makers.items():
        try:
            worker = make(clock)
        except (ConfigError, ValueError, TypeError) as error:
            raise ConfigError(f"{name} cannot be made: {error}") from error
        if "trajectories" in worker.pulled:
            learners.append(name)
        worker.close()
    _require_one_learner(learners)


def _require_one_learner(learners: Sequence[str]) -> None:
    """Trajectories are delivered once: a second worker that takes some would take them from the first."""
    if len(learners) > 1:
        first, second, *_ = learners
        raise ConfigError(
            f"{second} asks for trajectories, but they go to {first}, each once: let one of the two learn."
        )
