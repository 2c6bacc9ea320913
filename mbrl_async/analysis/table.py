"""The runs of an MLflow experiment in numbers, one a line: `python -m mbrl_async.analysis.table EXPERIMENT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console
from rich.table import Table

from mbrl_async.analysis.curves import RunHistory, read_run
from mbrl_async.tracking.run import REPLAYS_TAG, REPRODUCES_TAG
from mbrl_async.tracking.store import TrackingError, all_experiments, all_runs, open_store


@dataclass(frozen=True)
class Line:
    """One run."""

    name: str
    mean_return: float
    """Of the trajectories that were asked for; NaN if the run has not all of them."""
    updates: float
    """Policy updates per trajectory."""
    epochs: float
    """Model epochs per trajectory."""
    time_ratio: float
    """Run time / collection time at the end; NaN where collecting takes no time."""
    lateness_ms: tuple[float, float, float]
    """Of control steps: medians over the trajectories of the p50 and the p99, and the largest of all."""
    misses: float
    """Deadlines missed in the whole run."""


def main() -> int:
    """Print the table; the exit status: 0, or 2 if that cannot be done."""
    arguments = _parse()
    try:
        client = open_store(arguments.uri, create=False)
        runs = _runs(client, arguments.experiment)
    except TrackingError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    # A sweep has a run of its own, without a trajectory.
    finished = [run for run in runs if run.info.status == "FINISHED"]
    collected = [run for run in finished if "collect/return" in run.data.metrics]
    first_made = [run for run in collected if not {REPLAYS_TAG, REPRODUCES_TAG} & run.data.tags.keys()]
    lines = [summarise(read_run(client, run.info.run_id), arguments.first, arguments.last) for run in first_made]
    console = Console()
    if lines:
        console.print(_table(lines, arguments.first, arguments.last))
    else:
        console.print(f"No run of {arguments.experiment} has finished with a trajectory.", highlight=False)
    if len(first_made) < len(collected):
        console.print(f"Replays and reproductions, left out: {len(collected) - len(first_made)}.", highlight=False)
    if len(finished) < len(runs):
        console.print(f"Runs that are not finished, left out: {len(runs) - len(finished)}.", highlight=False)
    return 0


def _runs(client: MlflowClient, experiment: str) -> list[Run]:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        known = ", ".join(each.name for each in all_experiments(client))
        raise TrackingError(f"There is no experiment {experiment}: there are {known}.")
    return all_runs(client, [found.experiment_id])


def summarise(run: RunHistory, first: int, last: int) -> Line:
    """The numbers of one run, with the mean return of its trajectories `first` to `last`, counted from 0."""
    returns = run.curves["collect/return"].values
    p50, p99, longest = (run.curves[f"collect/lateness_{each}_ms"].values for each in ("p50", "p99", "max"))
    return Line(
        name=run.name,
        mean_return=float(returns[first : last + 1].mean()) if len(returns) > last else float("nan"),
        updates=_steps(run, "improve_policy") / len(returns),
        epochs=_steps(run, "learn_model") / len(returns),
        time_ratio=float(run.curves["run/time_ratio"].values[-1]) if "run/time_ratio" in run.curves else float("nan"),
        lateness_ms=(float(np.median(p50)), float(np.median(p99)), float(longest.max())),
        misses=float(run.curves["collect/deadline_misses"].values.sum()),
    )


def _steps(run: RunHistory, worker: str) -> int:
    return sum(record.worker == worker for record in run.trace)


def _table(lines: Sequence[Line], first: int, last: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    columns = (
        f"return {first}-{last}",
        "updates/traj.",
        "epochs/traj.",
        "run/collection",
        "late p50/p99/max ms",
        "misses",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(
            line.name,
            "–" if np.isnan(line.mean_return) else f"{line.mean_return:.0f}",
            f"{line.updates:.1f}",
            f"{line.epochs:.1f}",
            f"{line.time_ratio:.3f}",
            " / ".join(f"{each:.1f}" for each in line.lateness_ms),
            f"{line.misses:.0f}",
        )
    returns = [line.mean_return for line in lines if not np.isnan(line.mean_return)]
    if returns:
        table.add_row(f"mean of {len(returns)}", f"{np.mean(returns):.0f}")
    return table


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mbrl_async.analysis.table", description=__doc__)
    parser.add_argument("experiment", help="the name given as tracking.experiment")
    parser.add_argument("--uri", default="sqlite:///mlflow.db", help="the store given as tracking.uri")
    parser.add_argument("--first", type=int, default=50, help="first trajectory of the mean return, counted from 0")
    parser.add_argument("--last", type=int, default=59, help="last trajectory of the mean return")
    arguments = parser.parse_args()
    if not 0 <= arguments.first <= arguments.last:
        parser.error(
            f"--first {arguments.first} --last {arguments.last}: write 0 or more, and no last before the first."
        )
    return arguments


if __name__ == "__main__":
    sys.exit(main())
