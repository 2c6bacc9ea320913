"""What recording costs: MLflow at a hundred metrics a second, as a share of one core."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement
from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.tracking.run import MlflowRun
from mbrl_async.tracking.store import experiment_id, open_store

METRICS_A_STEP, STEPS_A_SECOND = 10, 10
"""A hundred metrics a second: a paper-sized run logs about 30."""


def measure(seconds: float) -> list[Measurement]:
    """Processor time of the whole process, MLflow's client and SQLite included, while nothing else runs in it."""
    with TemporaryDirectory() as name:
        client = open_store(f"sqlite:///{Path(name) / 'mlflow.db'}")
        run = MlflowRun(client=client, experiment_id=experiment_id(client, "benchmark"), name="benchmark", tags={})
        _log(run, 1.0)  # the first write imports and prepares
        before = time.process_time(), time.perf_counter()
        on_step = _log(run, seconds)
        run.finish("FINISHED")
        computing, elapsed = time.process_time() - before[0], time.perf_counter() - before[1]
    return [
        Measurement("MLflow, 100 metrics a second: share of a core", 100 * computing / elapsed, "%", 1),
        Measurement("MLflow: what a worker waits for a step's metrics", 1e6 * on_step, "us", 1),
    ]


def _log(run: MlflowRun, seconds: float) -> float:
    """Log in steps for so long; returns the mean seconds that a step's call took."""
    steps, spent = round(seconds * STEPS_A_SECOND), 0.0
    for index in range(1, steps + 1):
        record = StepRecord("improve_policy", index, 0.0, index / STEPS_A_SECOND, {})
        start = time.perf_counter()
        run.on_step(record, {f"benchmark/{name}": float(index) for name in range(METRICS_A_STEP)}, Counters())
        spent += time.perf_counter() - start
        time.sleep(1 / STEPS_A_SECOND)
    return spent / steps
