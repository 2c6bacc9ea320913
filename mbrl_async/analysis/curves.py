"""A run as MLflow kept it: metric histories and the trace, as arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mbrl_async.runtime.trace import TRACE_FILE, StepRecord, read_trace

if TYPE_CHECKING:
    from mlflow import MlflowClient

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The N values of one metric, in the order of the run's clock."""

    env_steps: Array  # (N,), environment steps of the run when the value was logged
    seconds: Array  # (N,), on the run's clock
    values: Array  # (N,)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def trajectories(self) -> Array:
        """How many there were at each value, (N,), of a metric that every trajectory logs."""
        return np.arange(1.0, len(self) + 1)


@dataclass(frozen=True)
class RunHistory:
    """What a run left in MLflow."""

    name: str
    curves: Mapping[str, Curve]
    """Metric name -> its curve; a metric that was never logged is missing."""
    trace: Sequence[StepRecord]
    """Empty if the run logged none."""


def read_run(client: MlflowClient, run_id: str) -> RunHistory:
    """Read the run `run_id`, which may still go on.

    Raises:
        mlflow.exceptions.MlflowException: there is no such run.
    """
    run = client.get_run(run_id)
    curves = {name: read_curve(client, run_id, name, run.info.start_time) for name in sorted(run.data.metrics)}
    return RunHistory(str(run.info.run_name), curves, _read_trace(client, run_id))


def read_curve(client: MlflowClient, run_id: str, name: str, started: int) -> Curve:
    """One metric of a run that started at `started`, in milliseconds since 1970."""
    points = sorted((metric.timestamp, metric.step, metric.value) for metric in client.get_metric_history(run_id, name))
    milliseconds, env_steps, values = np.array(points, dtype=np.float64).T
    return Curve(env_steps, (milliseconds - started) / 1000, values)


def moving_mean(values: Array, window: int) -> Array:
    """The mean of each value and the `window - 1` before it, of fewer at the beginning."""
    sums = np.concatenate(([0.0], np.cumsum(values)))  # (N + 1,)
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (sums[last] - sums[first]) / (last - first)  # (N,)


def _read_trace(client: MlflowClient, run_id: str) -> list[StepRecord]:
    if all(artifact.path != TRACE_FILE for artifact in client.list_artifacts(run_id)):
        return []
    with tempfile.TemporaryDirectory() as directory:
        return read_trace(Path(client.download_artifacts(run_id, TRACE_FILE, directory)))
