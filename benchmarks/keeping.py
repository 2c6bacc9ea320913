"""What keeping and recording cost a real-time run: with and without checkpoints in turn, and in processor time.

Asynchronous HalfCheetah on threads with a full buffer, whose model learner never stops early, so that both learners
compute all the time. A snapshot follows every trajectory (10 s), where a usual run makes one a minute.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from tempfile import TemporaryDirectory
from unittest.mock import patch

from rich.console import Console
from torch import Tensor

from benchmarks.checkpoint import TRAJECTORIES
from benchmarks.measurement import Measurement
from benchmarks.program_settings import settings
from benchmarks.stopwatch import Stopwatch, processor_seconds
from mbrl_async.checkpoint.keeper import RunKeeper
from mbrl_async.dynamics.early_stopping import EarlyStopping
from mbrl_async.experiment import Experiment, build_experiment
from mbrl_async.runtime import gate
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.recovery import Forgetful, Keeper
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL
from mbrl_async.runtime.state import RunState
from mbrl_async.runtime.stop import StopRule, StopSignal
from mbrl_async.runtime.trace import Counters, Observer, Observers, StepRecord
from mbrl_async.tracking.display import Display
from mbrl_async.tracking.run import MlflowRun
from mbrl_async.tracking.store import experiment_id, open_store
from mbrl_async.types import Metrics
from mbrl_async.workers.collector import Collector
from mbrl_async.workers.model_learner import ModelLearner
from mbrl_async.workers.policy_learner import PolicyLearner

LEARNERS = (LEARN_MODEL, IMPROVE_POLICY)
USUAL_SECONDS, SECONDS = 60.0, 10.0
"""Between two snapshots: usually, and here."""


class NeverStops(EarlyStopping):
    """Lets all members learn for ever."""

    def update(self, validation_losses: Tensor) -> None:
        """Judge nothing."""


@dataclass(frozen=True)
class Outcome:
    """What one run of the comparison did after its warm-up."""

    rates: Mapping[str, float]
    """Learner -> steps a second."""
    lateness: Sequence[float]
    """The 99th percentile of each trajectory, ms."""


def measure(pairs: int, trajectories: int) -> list[Measurement]:
    """So many runs with checkpoints and as many without, in turn; then one in which processor time is accounted."""
    runs: dict[bool, list[Outcome]] = {True: [], False: []}
    for pair in range(pairs):
        for keeping in (pair % 2 == 0, pair % 2 == 1):  # neither always comes first
            runs[keeping].append(_compared_run(keeping, trajectories))
    return [*comparison(runs[True], runs[False]), *_account(trajectories)]


def comparison(kept: Sequence[Outcome], forgotten: Sequence[Outcome]) -> list[Measurement]:
    """Of runs in pairs: the ratio of the learners' rates, and how much later control steps are."""
    ratios = sorted(
        geometric_mean([with_it.rates[name] / without.rates[name] for name in LEARNERS])
        for with_it, without in zip(kept, forgotten, strict=True)
    )
    late, usual = (median([ms for run in runs for ms in run.lateness]) for runs in (kept, forgotten))
    return [
        _row("learners' steps a second, with checkpoints / without: median of pairs", median(ratios), ""),
        _row("the same: lowest pair", ratios[0], ""),
        _row("the same: highest pair", ratios[-1], ""),
        _row("control-step lateness, p99, without checkpoints", usual, "ms"),
        _row("control-step lateness, p99, with checkpoints: how much more", late - usual, "ms"),
    ]


def outcome(steps: Sequence[tuple[StepRecord, Metrics]]) -> Outcome:
    """From the first trajectory that was made with a learned policy on."""
    late = [
        (record.start, metrics["collect/lateness_p99_ms"])
        for record, metrics in steps
        if record.worker == COLLECT and metrics["collect/policy_version"] > 0
    ]
    began = late[0][0]
    finishes = {name: [r.finish for r, _ in steps if r.worker == name and r.finish >= began] for name in LEARNERS}
    rates = {name: (len(times) - 1) / (times[-1] - times[0]) for name, times in finishes.items()}
    return Outcome(rates, [ms for _, ms in late])


def _compared_run(keeping: bool, trajectories: int) -> Outcome:
    experiment, heard = _experiment(), _Heard()
    with TemporaryDirectory() as name, _keeper(experiment, Path(name)) if keeping else _nothing() as keeper:
        _run(experiment, trajectories, heard, keeper)
    return outcome(heard.steps)


def _account(trajectories: int) -> list[Measurement]:
    """Processor time of everything that is no learning, as a share of the learners'."""
    watch, experiment = Stopwatch(), _experiment()
    with TemporaryDirectory() as name, ExitStack() as stack:
        client = open_store(f"sqlite:///{Path(name) / 'mlflow.db'}")
        run = MlflowRun(client=client, experiment_id=experiment_id(client, "benchmark"), name="benchmark", tags={})
        screen = stack.enter_context(Path(os.devnull).open("w"))
        display = Display(
            title="benchmark",
            trajectories=trajectories,
            env_steps=None,
            seconds=None,
            console=Console(file=screen, force_terminal=True),  # a live screen costs more than plain lines
        )
        keeper = stack.enter_context(_keeper(experiment, Path(name)))
        others = set(threading.enumerate())
        stack.enter_context(display)
        (drawing,) = set(threading.enumerate()) - others
        stack.enter_context(_watched(watch))
        _run(experiment, trajectories, Observers(run, display), keeper)
        background = {thread.name: processor_seconds(thread) for thread in threading.enumerate()}
        drawn = background[drawing.name]
        run.finish("FINISHED")
    learning = sum(watch.threads[name] for name in LEARNERS)
    spent = watch.seconds
    journal, snapshots = spent["journal"], spent["snapshots"] + background["checkpoint-writer"]
    recording = {
        "MLflow": spent["MLflow"] + background["mlflow-writer"],
        "trace and books": spent["books"],
        "digest": spent["digest"],
        "display": spent["display"] + drawn,
    }
    return [
        _share("checkpoints, a snapshot every 10 s", (journal + snapshots) / learning),
        _share("the same, every 60 s (goal: < 2 %)", (journal + snapshots * SECONDS / USUAL_SECONDS) / learning),
        *(_share(name, seconds / learning) for name, seconds in recording.items()),
        _share("MLflow, trace, digest and display together (goal: < 2 %)", sum(recording.values()) / learning),
    ]


@contextmanager
def _watched(watch: Stopwatch) -> Iterator[None]:
    """Time what the learners' own threads do besides learning."""
    timed: list[tuple[object, str, str]] = [
        (gate, "digest", "digest"),
        (RunState, "finish", "books"),
        (MlflowRun, "on_step", "MLflow"),
        (Display, "on_step", "display"),
        (RunKeeper, "append", "journal"),
        (RunKeeper, "save", "snapshots"),
        *((worker, "state_dict", "snapshots") for worker in (Collector, ModelLearner, PolicyLearner)),
        *((worker, "push", "publishing") for worker in (Collector, ModelLearner, PolicyLearner)),
    ]
    with ExitStack() as stack:
        for owner, name, label in timed:
            stack.enter_context(patch.object(owner, name, watch.timed(label, getattr(owner, name))))
        yield


def _experiment() -> Experiment:
    """With the trajectories of random actions that fill the buffer already in the stream."""
    never = f"dynamics.early_stopping._target_={NeverStops.__module__}.{NeverStops.__name__}"
    experiment = build_experiment(settings(never))
    collector = experiment.makers[COLLECT](VirtualClock(StopSignal()))
    for _ in range(TRAJECTORIES):
        collector.pull()
        collector.step()
        collector.push()
    collector.close()
    return experiment


@contextmanager
def _keeper(experiment: Experiment, directory: Path) -> Iterator[RunKeeper]:
    keeper = RunKeeper(
        directory=directory / "checkpoint",
        channels=experiment.channels,
        every_trajectories=1,
        every_seconds=None,
        keep=2,
        now=time.monotonic,
    )
    try:
        yield keeper
    finally:
        keeper.close()


@contextmanager
def _nothing() -> Iterator[Keeper]:
    yield Forgetful()


def _run(experiment: Experiment, trajectories: int, observer: Observer, keeper: Keeper) -> None:
    rule = StopRule(trajectories, None, None)
    summary = experiment.backend.run(experiment.makers, experiment.schedule, rule, StopSignal(), observer, keeper)
    if summary.failure is not None:
        raise summary.failure.error


class _Heard:
    """An observer that remembers every step."""

    def __init__(self) -> None:
        self.steps: list[tuple[StepRecord, Metrics]] = []

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:  # noqa: ARG002
        self.steps.append((record, metrics))


def _share(name: str, share: float) -> Measurement:
    return _row(f"processor time / that of the learners: {name}", 100 * share, "%")


def _row(name: str, value: float, unit: str) -> Measurement:
    return Measurement(name, value, unit, 1)
