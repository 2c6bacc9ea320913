"""Runs of which everything is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mbrl_async.analysis.curves import Array, Curve
from mbrl_async.analysis.series import ComparedRun, Series

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
) -> ComparedRun:
    """A run whose trajectories take 200 steps and `seconds` each; `returns` may be a function of their numbers."""
    numbers = np.arange(1.0, trajectories + 1)
    values = returns(numbers) if callable(returns) else returns
    return ComparedRun(
        run_id=f"run-{seed}-{started}",
        started=started,
        tags={**TAGS, "seed": str(seed), **(tags or {})},
        parameters={**PARAMETERS, "seed": str(seed), **(parameters or {})},
        returns=Curve(200 * numbers, seconds * numbers, np.asarray(values, dtype=np.float64)),
        measures={"updates / trajectory": float(seed)},
    )


def series(*runs: ComparedRun) -> Series:
    """One series, as `make_series` would make it."""
    tags = runs[0].tags
    return Series(tags["env"], tags["algorithm"], tags["schedule"], tags["backend"], "", runs)
