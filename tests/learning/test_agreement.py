"""What the virtual clock claims: given how long steps take, a simulated run is what the threaded run is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mbrl_async.job import Job, run_job
from mbrl_async.results import read_trajectories
from mbrl_async.runtime.trace import StepRecord, read_trace
from tests.small import composed, small

LEARNERS = ("learn_model", "improve_policy")
SEEDS = (0, 1, 2)
RUN = (
    "env.horizon=50",
    "stop.trajectories=20",
    "dynamics.ensemble.hidden=[64]",
    "dynamics.early_stopping.weight=0.9",
)
"""A hundred seconds of real time, in which the learners make hundreds of steps, and on a busy machine some dozens."""


def run(folder: Path, seed: int, *overrides: str) -> tuple[list[StepRecord], float]:
    """The trace, and the mean return of the last ten trajectories."""
    cfg = composed(*small(), *RUN, *overrides, f"seed={seed}", f"tracking.uri=sqlite:///{folder}/mlflow.db")
    choices = dict.fromkeys(("env", "algorithm", "schedule", "backend"), "agreement")
    output = folder / str(seed) / overrides[0]
    run_job(Job(cfg, overrides, choices, output))
    trajectories = read_trajectories(output / "trajectories.safetensors")
    return read_trace(output / "trace.jsonl"), float(np.mean([each.undiscounted_return for each in trajectories[-10:]]))


def durations(trace: list[StepRecord], worker: str) -> list[float]:
    return [record.finish - record.start for record in trace if record.worker == worker]


def updates_a_second(trace: list[StepRecord]) -> float:
    return len(durations(trace, "improve_policy")) / max(record.finish for record in trace)


@pytest.mark.slow
def test_simulated_and_threaded_runs_agree(tmp_path: Path):
    """The simulated run is told the mean durations of the threaded run's steps, so that a busy machine, on which three
    workers share less than three cores, makes no difference.
    """
    returns: dict[str, list[float]] = {"threads": [], "simulated": []}
    for seed in SEEDS:
        threaded, threaded_return = run(tmp_path, seed, "backend=threads")
        costs = [f"simulated.costs.{worker}={np.mean(durations(threaded, worker))}" for worker in LEARNERS]
        simulated, simulated_return = run(tmp_path, seed, "backend=simulated", *costs)
        assert updates_a_second(simulated) / updates_a_second(threaded) == pytest.approx(1, abs=0.1)
        returns["threads"].append(threaded_return)
        returns["simulated"].append(simulated_return)
    spread = max(np.ptp(each) for each in returns.values())
    # Three seeds each: equal distributions differ by more than their whole range in about one of twenty cases.
    assert abs(np.mean(returns["threads"]) - np.mean(returns["simulated"])) <= spread
