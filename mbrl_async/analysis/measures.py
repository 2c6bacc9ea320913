"""What explains a comparison: how stale the workers' inputs were, how busy the workers, how much they did."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mlflow import MlflowClient

from mbrl_async.types import WINDOW

LAST_VALUES = {
    "run/time_ratio": "run / collection time",
    "share/busy_collect": "busy: collect",
    "share/busy_learn_model": "busy: learn_model",
    "share/busy_improve_policy": "busy: improve_policy",
    "share/blocked_collect": "blocked: collect",
}
"""Metrics of which the last value is of the whole run -> what they are called in a comparison."""

MEDIANS = {
    "staleness/policy_versions": "staleness: policy (versions)",
    "staleness/policy_seconds": "staleness: policy (s)",
    "staleness/model_versions": "staleness: model (versions)",
    "staleness/model_seconds": "staleness: model (s)",
    "staleness/trajectories_versions": "staleness: trajectories",
    "staleness/trajectories_seconds": "staleness: trajectories (s)",
}
"""Metrics of which the median over the run's steps is told."""

COUNTS = {"improve_policy/updates": "updates / trajectory", "learn_model/epochs": "epochs / trajectory"}
"""Cumulative metrics that are divided by the trajectories."""

MEANS_OF_LAST = {
    "collect/success": f"success, last {WINDOW}",
}
"""What tasks say of a trajectory besides its return, of which the mean over the last ones is told."""

MEASURES = (*MEANS_OF_LAST.values(), *COUNTS.values(), *LAST_VALUES.values(), *MEDIANS.values())
"""In the order in which they are told."""


def read_measures(client: MlflowClient, run_id: str, last: Mapping[str, float]) -> dict[str, float]:
    """What the run has of `MEASURES`; `last` has the last value of each of its metrics."""
    trajectories = last["run/trajectories"]
    measures = {label: last[name] / trajectories for name, label in COUNTS.items() if name in last}
    measures |= {label: last[name] for name, label in LAST_VALUES.items() if name in last}
    measures |= {
        label: float(np.median(_history(client, run_id, each))) for each, label in MEDIANS.items() if each in last
    }
    for name, label in MEANS_OF_LAST.items():
        if name in last:
            measures[label] = float(np.mean(_history(client, run_id, name)[-WINDOW:]))
    return measures


def _history(client: MlflowClient, run_id: str, name: str) -> list[float]:
    """The metric's values, in the order in which they were logged."""
    history = sorted(client.get_metric_history(run_id, name), key=lambda metric: (metric.step, metric.timestamp))
    return [metric.value for metric in history]
