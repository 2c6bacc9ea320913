"""Runs of which everything is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mbrl_async.analysis.curves import Array, Curve
from mbrl_async.analysis.objectives import OUTCOMES, RETURN
from mbrl_async.analysis.series import ComparedRun, Series

DISTANCE = OUTCOMES["final_distance_cm"]
TAGS = {
    "env": "hopper",
    "algorithm": "me_trpo",
    "schedule": "async",
    "backend": "threads",
    "cpu": "abacus",
    "cores": "2",
    "device": "cpu",
    "git_commit": "c0ffee",
    "git_dirty": "false",
}
PARAMETERS = {"pace.factor": "1.0", "torch_threads.collect": "1", "dynamics.early_stopping.weight": "0.4"}


def run(
    seed: int,
    returns: Array | Callable[[Array], Array],
    *,
    trajectories: int = 50,
    seconds: float = 10.0,
    tags: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    started: int = 0,
    distances: Callable[[Array], Array] | None = None,
) -> ComparedRun:
    """A run whose trajectories take 200 steps and `seconds` each; `returns` may be a function of their numbers.

    The run of an arm also has `distances`.
    """
    numbers = np.arange(1.0, trajectories + 1)
    values = returns(numbers) if callable(returns) else returns
    metrics = {RETURN.metric: values} | ({} if distances is None else {DISTANCE.metric: distances(numbers)})
    return ComparedRun(
        run_id=f"run-{seed}-{started}",
        started=started,
        tags={**TAGS, "seed": str(seed), **(tags or {})},
        parameters={**PARAMETERS, "seed": str(seed), **(parameters or {})},
        curves={
            name: Curve(200 * numbers, seconds * numbers, np.asarray(each, dtype=np.float64))
            for name, each in metrics.items()
        },
        measures={"updates / trajectory": float(seed)},
    )


def series(*runs: ComparedRun) -> Series:
    """One series, as `make_series` would make it."""
    tags = runs[0].tags
    return Series(tags["env"], tags["algorithm"], tags["schedule"], tags["backend"], "", runs)
