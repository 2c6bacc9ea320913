"""One job: from a composed configuration to a finished MLflow run."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from mbrl_async.analysis.figures import write_figures
from mbrl_async.experiment import Experiment, build_experiment
from mbrl_async.results import write_results
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopSignal, stop_on_signals
from mbrl_async.runtime.trace import Counters, Observer, StepRecord
from mbrl_async.tracking.display import Display
from mbrl_async.tracking.environment import describe_environment
from mbrl_async.tracking.run import MlflowRun, Status
from mbrl_async.tracking.store import experiment_id, open_store, user_interface
from mbrl_async.types import Metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCORED_TRAJECTORIES = 10
"""The last ones, whose mean return is a job's score."""

STATUS: Mapping[Ending, Status] = {
    Ending.FINISHED: "FINISHED",
    Ending.FAILED: "FAILED",
    Ending.KILLED: "KILLED",
}

ARTIFACT_SECONDS: Mapping[Ending, float] = {Ending.FINISHED: 60.0, Ending.FAILED: 60.0, Ending.KILLED: 2.0}
"""How long MLflow may take for the files of a run; an interrupted one has to end within five seconds in all."""


class WorkerFailedError(Exception):
    """A worker raised; its exception is the cause."""


@dataclass(frozen=True)
class Job:
    """What to run, and what it is called.

    Args:
        cfg: the composed configuration.
        overrides: what the user changed on the command line.
        choices: group -> chosen option, such as env -> half_cheetah.
        output: where files go.
    """

    cfg: DictConfig
    overrides: Sequence[str]
    choices: Mapping[str, str]
    output: Path


def run_job(job: Job) -> float:
    """Run to the end, record everything, and return the mean return of the last trajectories.

    Raises:
        ConfigError: the configuration cannot be used; nothing was started.
        TrackingError: MLflow cannot be used as configured; nothing was started.
        WorkerFailedError: a worker raised; the MLflow run is FAILED.
        KeyboardInterrupt: the run was interrupted, and all it has is saved; the MLflow run is KILLED.
    """
    experiment = build_experiment(job.cfg)
    torch.set_float32_matmul_precision(experiment.settings.matmul_precision)
    client = open_store(experiment.settings.tracking.uri)
    stop = StopSignal()
    run = _start_run(job, experiment, client)
    returns = _Returns()
    display = _display(job, experiment)
    ending = Ending.FAILED  # should anything go wrong before the summary says better
    try:
        with stop_on_signals(stop):
            with display:
                summary = _run(experiment, stop, _Observers(run, display, returns))
            ending = summary.ending
            write_results(job.output, experiment.channels, summary)
            run.log_artifacts(job.output, ARTIFACT_SECONDS[ending])
    except KeyboardInterrupt:
        ending = Ending.KILLED
        raise
    finally:
        run.finish(STATUS[ending])
    figures = [] if ending is Ending.KILLED else _draw(job, client, run)
    display.summary(
        ending=ending.value, figures=figures, user_interface=user_interface(experiment.settings.tracking.uri)
    )
    _raise_if_unfinished(summary)
    return returns.score()


def _start_run(job: Job, experiment: Experiment, client: MlflowClient) -> MlflowRun:
    """Create the MLflow run, with everything that is known before it starts."""
    settings = experiment.settings
    environment = describe_environment(source=Path(__file__).parent, device=torch.device(settings.device))
    tags = {name: job.choices[name] for name in ("env", "algorithm", "schedule", "backend")}
    run = MlflowRun(
        client=client,
        experiment_id=experiment_id(client, settings.tracking.experiment),
        name=f"{tags['algorithm']} {tags['env']} {tags['schedule']} seed {settings.seed}",
        tags={**tags, "seed": str(settings.seed), **environment.tags()},
    )
    config: Any = OmegaConf.to_container(job.cfg, resolve=True)
    run.log_parameters(config)
    job.output.mkdir(parents=True, exist_ok=True)
    (job.output / "config.yaml").write_text(OmegaConf.to_yaml(job.cfg))
    (job.output / "overrides.txt").write_text("".join(f"{override}\n" for override in job.overrides))
    environment.write(job.output / "environment.json")
    return run


def _run(experiment: Experiment, stop: StopSignal, observer: Observer) -> RunSummary:
    # What was imported stays: a full collection that walks through it stops every thread for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        return experiment.backend.run(experiment.makers, experiment.schedule, experiment.rule, stop, observer)
    finally:
        gc.unfreeze()


def _display(job: Job, experiment: Experiment) -> Display:
    rule = experiment.rule
    names = [job.choices[name] for name in ("algorithm", "env", "schedule", "backend")]
    return Display(
        title=" · ".join((*names, f"seed {experiment.settings.seed}")),
        trajectories=rule.trajectories,
        env_steps=rule.env_steps,
        seconds=rule.seconds,
    )


def _draw(job: Job, client: MlflowClient, run: MlflowRun) -> list[Path]:
    """The figures of a run that has ended, as files and as artifacts."""
    directory = job.output / "figures"
    directory.mkdir(exist_ok=True)
    figures = write_figures(client, run.run_id, directory)
    run.log_artifacts(job.output)
    return figures


def _raise_if_unfinished(summary: RunSummary) -> None:
    if summary.failure is not None:
        error = summary.failure.error
        raise WorkerFailedError(f"{summary.failure.worker} failed: {type(error).__name__}: {error}") from error
    if summary.ending is Ending.KILLED:
        raise KeyboardInterrupt


class _Observers:
    """Passes every step on to several observers."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        for observer in self._observers:
            observer.on_step(record, metrics, counters)


class _Returns:
    """Remembers the return of every trajectory."""

    def __init__(self) -> None:
        self._returns: list[float] = []

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:  # noqa: ARG002
        if "collect/return" in metrics:
            self._returns.append(metrics["collect/return"])

    def score(self) -> float:
        last = self._returns[-SCORED_TRAJECTORIES:]
        return sum(last) / len(last)
