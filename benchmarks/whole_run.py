"""What a user sees of whole runs: start-up, lateness of control steps while both learners work, time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from benchmarks.announcing_task import ANNOUNCEMENT, AnnouncingHalfCheetah
from benchmarks.measurement import Measurement

REPOSITORY = Path(__file__).parents[1]
WORKER_THREADS = 1
LOADED_RUN = "loaded run"
"""The MLflow experiment that it is in."""
LATENESS = ("collect/lateness_p50_ms", "collect/lateness_p99_ms", "collect/lateness_max_ms", "collect/deadline_misses")
INTERRUPTED = 130
"""The exit status of a run that was ended by a signal."""
METRICS = (*LATENESS, "collect/policy_version", "run/time_ratio")

Histories = Mapping[str, Sequence[float]]
"""Metric -> its values, one a trajectory, in order."""


@dataclass(frozen=True)
class Observed:
    """What could be seen of a process from outside."""

    start_up_seconds: float
    """From the command to the first control step."""
    peak_memory: int
    """Bytes."""


def measure(trajectories: int, pace: float, repetitions: int) -> list[Measurement]:
    """Figures of one asynchronous run, which makes the database, and of so many starts on that database."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        loaded = observe(command(directory, LOADED_RUN, trajectories, pace))
        start = command(directory, "starts", trajectories=1, pace=1.0)
        starts = [observe(start, until_announcement=True).start_up_seconds for _ in range(repetitions)]
        collected = histories(f"sqlite:///{directory / 'mlflow.db'}", LOADED_RUN)
    return [
        _measurement("start-up (goal: < 10 s)", median(starts), "s"),
        _measurement("start-up with a new database", loaded.start_up_seconds, "s"),
        *lateness(collected),
        run_and_collection(collected),
        _measurement("peak memory", loaded.peak_memory / 2**20, "MiB"),
    ]


def command(directory: Path, experiment: str, trajectories: int, pace: float) -> list[str]:
    """`python main.py`, asynchronous HalfCheetah in threads, with all that it writes in `directory`."""
    task = f"{AnnouncingHalfCheetah.__module__}.{AnnouncingHalfCheetah.__name__}"
    threads = [f"torch_threads.{worker}={WORKER_THREADS}" for worker in ("collect", "learn_model", "improve_policy")]
    return [
        *(sys.executable, "main.py", "env=half_cheetah", f"env._target_={task}", "schedule=async", "backend=threads"),
        *threads,
        *(f"stop.trajectories={trajectories}", f"pace.factor={pace}"),
        *(f"tracking.uri=sqlite:///{directory / 'mlflow.db'}", f"tracking.experiment={experiment}"),
        f"hydra.run.dir={directory / experiment}",
    ]


def observe(arguments: Sequence[str], *, until_announcement: bool = False) -> Observed:
    """Run a command that announces its first control step, to its end or only until then.

    Raises:
        RuntimeError: it failed, or announced nothing; with all that it printed.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        announced, printed = _listen(process, until_announcement)
        # Of this process alone; `process.wait` would drop it.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if announced is None or process.returncode != (INTERRUPTED if until_announcement else 0):
        raise RuntimeError(f"{' '.join(arguments)} ended with status {process.returncode}:\n{printed}")
    return Observed(announced - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def histories(uri: str, experiment_name: str) -> Histories:
    """What the only run of an experiment has told of its trajectories."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment is not None, "the run has made it"
    (run,) = client.search_runs([experiment.experiment_id])
    return {name: _history(client, run.info.run_id, name) for name in METRICS}


def lateness(collected: Histories) -> list[Measurement]:
    """Of the trajectories during which both learners worked: those after the warm-up, which have a learnt policy.

    The percentiles are those of the median trajectory.
    """
    working = [version > 0 for version in collected["collect/policy_version"]]
    p50, p99, longest, misses = (list(compress(collected[name], working)) for name in LATENESS)
    return [
        _measurement("control-step lateness, p50", median(p50), "ms"),
        _measurement("control-step lateness, p99", median(p99), "ms"),
        _measurement("control-step lateness, max", max(longest), "ms"),
        _measurement("missed deadlines", sum(misses), "steps"),
    ]


def run_and_collection(collected: Histories) -> Measurement:
    """Run time over collection time at the end."""
    ratio = collected["run/time_ratio"][-1]
    return _measurement("run / collection time, warm-up included", ratio, "", ratio_to_ceiling=1 / ratio)


def _measurement(name: str, value: float, unit: str, ratio_to_ceiling: float | None = None) -> Measurement:
    return Measurement(name, value, unit, WORKER_THREADS, ratio_to_ceiling)


def _listen(process: subprocess.Popen[str], until_announcement: bool) -> tuple[float | None, str]:
    """Read to the end; the time of the announcement, and everything that was printed."""
    assert process.stdout is not None, "it is a pipe"
    announced, lines = None, []
    for line in process.stdout:
        if announced is None and line.strip() == ANNOUNCEMENT:
            announced = time.perf_counter()
            if until_announcement:
                process.terminate()
        lines.append(line)
    return announced, "".join(lines)


def _history(client: MlflowClient, run_id: str, name: str) -> list[float]:
    history = client.get_metric_history(run_id, name)
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]
