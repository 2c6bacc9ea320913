"""Threads against processes: how fast learners are, and how late the collector is while both of them work."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
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
OTHERS = "taken by other programs"
"""What makes a comparison unfair: a figure that is no better or worse for either backend."""
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
        if pair[1].value != 0 and pair[0].name != OTHERS:
            rows.append(Measurement(f"{name}, threads : processes", pair[0].value / pair[1].value, "", WORKER_THREADS))
    return rows


def _compared(task: str, seconds: float) -> list[Measurement]:
    return beside(task, *(_figures(backend, task, seconds) for backend in BACKENDS))


def _figures(backend: str, task: str, seconds: float) -> list[Measurement]:
    with TemporaryDirectory() as name:
        directory = Path(name)
        others = _run(command(directory, backend, task, seconds))
        speeds = learner_speeds(read_trace(directory / backend / TRACE_FILE))
        return [*speeds, *lateness(histories(f"sqlite:///{directory / 'mlflow.db'}", backend)), *others]


def _run(arguments: Sequence[str]) -> list[Measurement]:
    """Run a command; what other programs took of the cores meanwhile, where the system tells.

    Where that differs between two runs, so do all other figures, for that reason alone.
    """
    before, own_before, began = _busy_seconds(), _seconds_of_children(), time.perf_counter()
    subprocess.run(arguments, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    after = _busy_seconds()
    if before is None or after is None:
        return []
    others = after - before - (_seconds_of_children() - own_before)
    share = others / (time.perf_counter() - began) / (os.cpu_count() or 1)
    return [Measurement(OTHERS, 100 * max(0.0, share), "% of the cores", WORKER_THREADS)]


def _busy_seconds() -> float | None:
    """Of all cores and all programs since the machine started; None: the system does not tell."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return None
    user, nice, system, *_ = statistics.read_text().splitlines()[0].split()[1:]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def _seconds_of_children() -> float:
    """Of computing, of this program's children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
