"""Executes a recorded run again and compares it: `python main.py backend=replay replay.run_id=RUN_ID`.

In a debugger or a notebook: `replayed(run_id, until="learn_model:12")` stops there and returns workers and channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from mbrl_async.collectors import is_repeatable
from mbrl_async.config import ConfigError
from mbrl_async.differences import COMPUTES, environment_differences
from mbrl_async.distance import and_in, final_parameters, same_parameters
from mbrl_async.experiment import Experiment, build_experiment
from mbrl_async.job import Job, WorkerFailedError, run_job
from mbrl_async.recorded import RecordedRun, all_overrides, compose_again, default_uri
from mbrl_async.results import TRAJECTORIES_FILE
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.replay import DeviationError
from mbrl_async.runtime.schedule import collector_names
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.runtime.trace import TRACE_FILE, Counters, StepRecord, read_trace
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.settings import devices_of
from mbrl_async.tracking.run import REPLAYS_TAG
from mbrl_async.tracking.store import open_store
from mbrl_async.types import Clock, Metrics
from mbrl_async.wiring import Channels

RECORDED = "recorded"
"""The folder, among the files of a replay, of what it was compared with."""


class NotIdenticalError(Exception):
    """A run that should have been identical to a recorded one is not; the message says from where on."""


def run_replay(job: Job) -> float:
    """Execute the run `replay.run_id` again and record that as a run of its own; see `run_job`.

    Raises:
        ConfigError: the run cannot be replayed, or not here; nothing was started.
        NotIdenticalError: a step, or the final parameters, differ from the recorded ones.
    """
    recorded, cfg, choices = _prepare(job.cfg, job.overrides, job.output / RECORDED)
    tags = {**job.tags, REPLAYS_TAG: recorded.run_id}
    try:
        overrides = all_overrides(recorded, job.overrides)
        score = run_job(replace(job, cfg=cfg, overrides=overrides, choices=choices, tags=tags))
    except WorkerFailedError as error:
        if isinstance(error.__cause__, DeviationError):
            raise NotIdenticalError(f"Not identical to run {recorded.run_id}: {error.__cause__}") from error
        raise
    Console().print(_verdict(recorded, job.output), highlight=False, soft_wrap=True)
    return score


@dataclass(frozen=True)
class Replayed:
    """A replay that has stopped, open to inspection."""

    workers: Mapping[str, Worker]
    channels: Channels
    summary: RunSummary
    """`failure` is the deviation, if there was one."""


def replayed(
    run_id: str,
    *,
    until: int | str | None = None,
    uri: str | None = None,
    overrides: Sequence[str] = (),
) -> Replayed:
    """Execute a recorded run again, without recording that.

    Args:
        run_id: MLflow's.
        until: the last step, as a position in the trace, or as `worker:index`; None: to the end.
        uri: the store that holds the run; None: where runs are tracked if nobody says otherwise.
        overrides: settings that shall differ, such as `replay.environment=any`.

    Raises:
        ConfigError: the run cannot be replayed, or not here.
    """
    stop_there = [] if until is None else [f"replay.until={until}"]
    all_overrides = ["backend=replay", f"replay.run_id={run_id}", *stop_there, *overrides]
    request = OmegaConf.create({"replay": {"run_id": run_id}, "tracking": {"uri": uri or default_uri()}})
    with tempfile.TemporaryDirectory() as directory:
        _, cfg, _ = _prepare(request, all_overrides, Path(directory))
        experiment = build_experiment(cfg)
        torch.set_float32_matmul_precision(experiment.settings.matmul_precision)
        return _run(experiment)


def _prepare(
    request: DictConfig, overrides: Sequence[str], directory: Path
) -> tuple[RecordedRun, DictConfig, dict[str, str]]:
    """The recorded run, its configuration on this backend with the overrides on top, and the chosen options."""
    if OmegaConf.is_missing(request.replay, "run_id"):
        raise ConfigError("replay.run_id is missing: give the id of the run, as MLflow shows it.")
    recorded = RecordedRun(open_store(request.tracking.uri, create=False), str(request.replay.run_id), directory)
    cfg, choices = compose_again(recorded, overrides)
    cfg.tracking.uri = request.tracking.uri
    cfg.replay.trace = str(recorded.fetch(TRACE_FILE))
    if _takes_recorded_trajectories(cfg):
        cfg.algorithm.workers.collect.task = {
            "_target_": "mbrl_async.recorded_task.RecordedTask",
            "task": cfg.env,
            "file": str(recorded.fetch(TRAJECTORIES_FILE)),
            "trace": cfg.replay.trace,
            "collector": list(collector_names(cfg.collectors)),
        }
    if cfg.replay.environment != "any":
        _require_same_environment(recorded, devices_of(cfg.devices))
    return recorded, cfg, choices


def _takes_recorded_trajectories(cfg: DictConfig) -> bool:
    if cfg.replay.trajectories != "auto":
        return bool(cfg.replay.trajectories == "recorded")
    return not is_repeatable(cfg.env)


def _require_same_environment(recorded: RecordedRun, device: str) -> None:
    different = [each for each in environment_differences(recorded, device) if each.name in COMPUTES]
    if different:
        raise ConfigError(
            f"Run {recorded.run_id} cannot be replayed to the last bit here ({'; '.join(map(str, different))}): "
            "use the same, or see how far it goes with replay.environment=any."
        )


def _verdict(recorded: RecordedRun, output: Path) -> str:
    """What was found, in a sentence.

    Raises:
        NotIdenticalError: the run's last parameters are not those that were stored.
    """
    steps, all_steps = len(read_trace(output / TRACE_FILE)), len(read_trace(recorded.fetch(TRACE_FILE)))
    if steps < all_steps:
        return f"identical to run {recorded.run_id} in all of the first {steps} of {all_steps} steps"
    compared = final_parameters(recorded)
    for name in compared:
        if not same_parameters(recorded, output, name):
            raise NotIdenticalError(
                f"Not identical to run {recorded.run_id}: all steps are, but the stored {name} is not what they "
                "ended with; it was changed afterwards."
            )
    return f"identical to run {recorded.run_id} in all {steps} steps{and_in(compared)}"


def _run(experiment: Experiment) -> Replayed:
    """Run, and keep the workers, on a clock that never tells them to stop: so they can be stepped further by hand."""
    workers: dict[str, Worker] = {}
    clock = VirtualClock(StopSignal())

    def keeping(name: str, make: WorkerMaker) -> WorkerMaker:
        def made(_: Clock) -> Worker:
            workers[name] = make(clock)
            return workers[name]

        return made

    makers = {name: keeping(name, make) for name, make in experiment.makers.items()}
    summary = experiment.backend.run(makers, experiment.schedule, experiment.rule, StopSignal(), _Nobody(), Forgetful())
    return Replayed(workers, experiment.channels, summary)


class _Nobody:
    """An observer that hears nothing."""

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        pass
