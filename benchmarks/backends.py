"""Threads against processes: how fast learners are, and how late the collector is while both of them work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement
from benchmarks.never_stopping import NeverStopping
from benchmarks.whole_run import REPOSITORY, WORKER_THREADS, histories, lateness
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL
from mbrl_async.runtime.trace import TRACE_FILE, StepRecord, read_trace

BACKENDS = ("threads", "processes")
TASKS: Mapping[str, str] = {"half_cheetah": "20 Hz", "hopper": "125 Hz"}
"""Task -> its control frequency."""
LEARNERS: Mapping[str, str] = {LEARN_MODEL: "model epochs", IMPROVE_POLICY: "policy updates"}


def measure(seconds: float) -> list[Measurement]:
    """Figures of asynchronous runs of so many seconds, each beside the same of the other backend."""
    return list(chain.from_iterable(_compared(task, seconds) for task in TASKS))


def command(directory: Path, backend: str, task: str, seconds: float) -> list[str]:
    """`python main.py`, asynchronous in real time, with all that it writes in `directory`."""
    never = f"{NeverStopping.__module__}.{NeverStopping.__name__}"
    return [
        *(sys.executable, "main.py", f"env={task}", "schedule=async", f"backend={backend}"),
        *(f"torch_threads.{worker}={WORKER_THREADS}" for worker in (COLLECT, *LEARNERS)),
        *(f"dynamics.early_stopping._target_={never}", "stop.trajectories=null", f"stop.seconds={seconds}"),
        *(f"tracking.uri=sqlite:///{directory / 'mlflow.db'}", f"tracking.experiment={backend}"),
        f"hydra.run.dir={directory / backend}",
    ]


def learner_speeds(records: Sequence[StepRecord]) -> list[Measurement]:
    """Steps a second of each learner from the first trajectory with a learnt policy on."""
    begun = min(record.start for record in records if record.worker == COLLECT and record.pulled["policy"] > 0)
    seconds = records[-1].finish - begun
    done = [record.worker for record in records if record.start >= begun]
    return [Measurement(name, done.count(worker) / seconds, "1/s", WORKER_THREADS) for worker, name in LEARNERS.items()]


def beside(task: str, threads: Sequence[Measurement], processes: Sequence[Measurement]) -> list[Measurement]:
    """Each figure of both backends, and their ratio where there is one."""
    rows: list[Measurement] = []
    for pair in zip(threads, processes, strict=True):
        name = f"{task}, {TASKS[task]}: {pair[0].name}"
        for backend, figure in zip(BACKENDS, pair, strict=True):
            rows.append(Measurement(f"{name}, {backend}", figure.value, figure.unit, figure.threads))
        if pair[1].value != 0:
            rows.append(Measurement(f"{name}, threads : processes", pair[0].value / pair[1].value, "", WORKER_THREADS))
    return rows


def _compared(task: str, seconds: float) -> list[Measurement]:
    return beside(task, *(_figures(backend, task, seconds) for backend in BACKENDS))


def _figures(backend: str, task: str, seconds: float) -> list[Measurement]:
    with TemporaryDirectory() as name:
        directory = Path(name)
        subprocess.run(
            command(directory, backend, task, seconds), cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL
        )
        speeds = learner_speeds(read_trace(directory / backend / TRACE_FILE))
        return [*speeds, *lateness(histories(f"sqlite:///{directory / 'mlflow.db'}", backend))]
