"""One job: from a composed configuration to a finished MLflow run."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from mbrl_async.analysis.figures import write_figures
from mbrl_async.checkpoint.keeper import RunKeeper
from mbrl_async.checkpoint.lock import only_process
from mbrl_async.config import ConfigError
from mbrl_async.experiment import Experiment, build_experiment, without_effect
from mbrl_async.results import RESULT_FILES, write_results
from mbrl_async.run_folder import ARTIFACTS, CHECKPOINT, ENVIRONMENT_FILE, FIGURES, Identity, clear, write_config
from mbrl_async.runtime.recovery import Past
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopSignal, stop_on_signals
from mbrl_async.runtime.trace import Counters, Observer, Observers
from mbrl_async.tracking.display import Display
from mbrl_async.tracking.environment import Environment, describe_environment
from mbrl_async.tracking.progress import Progress
from mbrl_async.tracking.run import MlflowRun, Status, changed_tags
from mbrl_async.tracking.store import charts_page, experiment_id, open_store, user_interface

if TYPE_CHECKING:
    from mlflow import MlflowClient

OUTPUT_TAG = "output"
"""The MLflow tag that tells where a run's files are."""

RESUMED_TAG = "resumed"
"""The MLflow tag that counts how often a run was resumed."""

STATUS: Mapping[Ending, Status] = {
    Ending.FINISHED: "FINISHED",
    Ending.FAILED: "FAILED",
    Ending.KILLED: "KILLED",
}
ARTIFACT_SECONDS: Mapping[Ending, float] = {Ending.FINISHED: 60.0, Ending.FAILED: 60.0, Ending.KILLED: 0.8}
"""How long MLflow may take for the files of a run; an interrupted one has to end within five seconds in all."""

log = logging.getLogger(__name__)


class WorkerFailedError(Exception):
    """A worker raised; its exception is the cause."""

    interrupted = False
    """Whether a signal came as well, which a sweep must not go on after."""


@dataclass(frozen=True)
class Job:
    """What to run, and what it is called.

    Args:
        cfg: the composed configuration.
        overrides: what the user changed on the command line.
        choices: group -> chosen option, such as env -> half_cheetah.
        output: where files go.
        tags: of the MLflow run, besides those that every run has.
        resumed: the MLflow run that the files belong to and that goes on; None: a new one.
        changes: those of the overrides that came with the resumption.
    """

    cfg: DictConfig
    overrides: Sequence[str]
    choices: Mapping[str, str]
    output: Path
    tags: Mapping[str, str] = field(default_factory=dict)
    resumed: str | None = None
    changes: Sequence[str] = ()


def run_job(job: Job) -> float:
    """Run to the end, record everything, and return the mean return of the last trajectories (NaN if there are none).

    Raises:
        ConfigError: the configuration cannot be used; nothing was started.
        TrackingError: MLflow cannot be used as configured; nothing was started.
        WorkerFailedError: a worker raised; the MLflow run is FAILED.
        KeyboardInterrupt: the run was interrupted, and all it has is saved; the MLflow run is KILLED, or FINISHED if
            it had reached its stop rule by then. After a second interruption only checkpoints are saved.
    """
    if job.cfg.resume is not None:  # what goes on has its stored configuration, in which nothing is resumed
        raise ConfigError(f"resume={job.cfg.resume} goes on with one run: give it to python main.py without -m.")
    experiment = build_experiment(job.cfg)
    for sentence in without_effect(job.cfg, job.overrides):
        log.warning(sentence)
    client = open_store(experiment.settings.tracking.uri)
    stop = StopSignal()
    with (
        _torch_settings(experiment.settings.matmul_precision),
        stop_on_signals(stop),
        only_process(job.output / CHECKPOINT),
        _keeper(job, experiment) as keeper,
    ):
        _require_unfinished(job, experiment, client, keeper)
        return _record(job, experiment, client, stop, keeper)


@contextmanager
def _torch_settings(matmul_precision: str) -> Iterator[None]:
    """Leave to the next job of this process what it would find in a new one."""
    before = torch.get_float32_matmul_precision()
    threads = torch.get_num_threads()  # a backend sets those of its workers
    torch.set_float32_matmul_precision(matmul_precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_num_threads(threads)


@contextmanager
def _keeper(job: Job, experiment: Experiment) -> Iterator[RunKeeper]:
    """Journal and snapshots of the run; of another one that had the same folder, none remain, and no results."""
    settings = experiment.settings.checkpoint
    if job.resumed is None:
        clear(job.output)
    keeper = RunKeeper(
        directory=job.output / CHECKPOINT,
        channels=experiment.channels,
        every_trajectories=settings.every_trajectories,
        every_seconds=settings.every_seconds,
        keep=settings.keep,
        now=time.monotonic,
    )
    with closing(keeper):
        yield keeper


def _require_unfinished(job: Job, experiment: Experiment, client: MlflowClient, keeper: RunKeeper) -> None:
    """Refuse to resume a run that has nothing left to do."""
    if job.resumed is None or client.get_run(job.resumed).info.status != STATUS[Ending.FINISHED]:
        return
    counters = keeper.past.entries[-1].books.counters if keeper.past.entries else Counters()
    extended = any(override.startswith("stop.") for override in job.changes)
    if not extended or experiment.rule.reached(counters):
        later = " ".join(f"stop.{name}={2 * come}" for name, come in experiment.rule.ended_by(counters).items())
        raise ConfigError(
            f"resume={job.resumed}: this run has finished, with {counters.trajectories} trajectories, "
            f"{counters.env_steps} environment steps and {counters.seconds:.1f} s; to extend it, set a later end, "
            f"for instance {later}."
        )


def _record(job: Job, experiment: Experiment, client: MlflowClient, stop: StopSignal, keeper: RunKeeper) -> float:
    """Run within an MLflow run, which ends with the right status whatever happens."""
    environment = describe_environment(
        source=Path(__file__).parent, device=torch.device(experiment.settings.computes_on)
    )
    run = _start_run(job, experiment, client, environment)
    progress, display = Progress(), _display(job, experiment)
    ending = Ending.FAILED  # unless everything is saved
    delivered = False
    try:
        if job.resumed is None:
            _describe(job, run, environment, client.tracking_uri)
        else:
            _catch_up(job, run, environment, client.tracking_uri)
            _tell_of_past(run, keeper.past, Observers(display, progress))
        with display:
            summary = _run(experiment, stop, Observers(run, display, progress), keeper)
        run.log_artifacts(job.output, _artifacts(job, experiment, summary), patience=ARTIFACT_SECONDS[summary.ending])
        ending = summary.ending
    except KeyboardInterrupt:  # the second signal: what the journal has is all that remains, and nobody waits for long
        ending = Ending.KILLED
        raise
    finally:
        delivered = run.finish(STATUS[ending])
    figures = _draw(job, client, run) if delivered and not stop.interrupted else []
    display.summary(
        run_id=run.run_id,
        ending=ending.value,
        figures=figures,
        user_interface=user_interface(client.tracking_uri),
        page=charts_page(client.tracking_uri, run.experiment_id),
    )
    _raise_if_unfinished(summary, stop)
    score = progress.snapshot().mean_return
    return float("nan") if score is None else score


def _artifacts(job: Job, experiment: Experiment, summary: RunSummary) -> Collection[str]:
    """What MLflow is to have of the folder, in which the results are now."""
    if summary.caught_up:
        write_results(job.output, experiment.channels, summary)
        return ARTIFACTS
    log.warning("The run ended before its past was done again: results stay as they were, and nothing is lost.")
    return [name for name in ARTIFACTS if name not in RESULT_FILES]


def _start_run(job: Job, experiment: Experiment, client: MlflowClient, environment: Environment) -> MlflowRun:
    settings = experiment.settings
    tags = {name: job.choices[name] for name in ("env", "algorithm", "schedule", "backend")}
    return MlflowRun(
        client=client,
        experiment_id=experiment_id(client, settings.tracking.experiment),
        # What most often differs comes first: MLflow's table shows some two dozen characters.
        name=f"{tags['schedule']} seed {settings.seed} {tags['env']} {tags['algorithm']}",
        tags={
            **tags,
            "seed": str(settings.seed),
            **_output_tag(job),
            **environment.tags(),
            **job.tags,
        },
        resumed=job.resumed,
    )


def _describe(job: Job, run: MlflowRun, environment: Environment, tracking_uri: str) -> None:
    """Record everything that is known before the start."""
    config: Any = OmegaConf.to_container(job.cfg, resolve=True)
    # The sweep is a tag; as a parameter its name, by default the time of day, would be a difference of any two runs.
    run.log_parameters({group: settings for group, settings in config.items() if group != "sweep"})
    write_config(job.output, job.cfg, job.overrides)
    environment.write(job.output / ENVIRONMENT_FILE)
    Identity(run.run_id, tracking_uri, dict(job.choices)).write(job.output)


def _catch_up(job: Job, run: MlflowRun, environment: Environment, tracking_uri: str) -> None:
    """Record what the resumption has changed: where the files and MLflow are, what computes, when the run is to end."""
    write_config(job.output, job.cfg, job.overrides)
    environment.append_to(job.output / ENVIRONMENT_FILE)
    run.add_to_tags(environment.tags())
    Identity(run.run_id, tracking_uri, dict(job.choices)).write(job.output)
    run.count(RESUMED_TAG)
    rule: Any = OmegaConf.to_container(job.cfg.stop, resolve=True)
    run.set_tags(_output_tag(job) | changed_tags({"stop": rule}))


def _tell_of_past(run: MlflowRun, past: Past, observers: Observer) -> None:
    """Tell everybody what happened before the resumption, as far as they do not know it."""
    steps = [(entry.record, entry.metrics, entry.books.counters) for entry in past.entries]
    run.catch_up(steps)
    for step in steps:
        observers.on_step(*step)


def _output_tag(job: Job) -> dict[str, str]:
    return {OUTPUT_TAG: str(job.output.resolve())}


def _run(experiment: Experiment, stop: StopSignal, observer: Observer, keeper: RunKeeper) -> RunSummary:
    # What was imported stays: a full collection that walks through it stops every thread for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        summary = experiment.backend.run(
            experiment.makers, experiment.schedule, experiment.rule, stop, observer, keeper
        )
    finally:
        gc.unfreeze()
    if summary.unresponsive:
        log.warning("Still in a step when the run was given up: %s.", ", ".join(summary.unresponsive))
    return summary


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
    """The figures of a run that has ended, as files and as artifacts; none if they cannot be drawn."""
    try:
        figures = write_figures(client, run.run_id, job.output / FIGURES)
    except Exception as error:  # a run that is over and saved must not fail for its pictures
        log.warning("The figures could not be drawn (%s: %s).", type(error).__name__, error)
        return []
    run.log_artifacts(job.output / FIGURES, [figure.name for figure in figures], below=FIGURES)
    return figures


def _raise_if_unfinished(summary: RunSummary, stop: StopSignal) -> None:
    if summary.failure is not None:
        error = summary.failure.error
        failed = WorkerFailedError(f"{summary.failure.worker} failed: {type(error).__name__}: {error}")
        failed.interrupted = stop.interrupted
        raise failed from error
    if stop.interrupted:
        raise KeyboardInterrupt
