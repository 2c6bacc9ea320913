"""A comparison for other programs: every number that it has, and every trajectory that it was made of."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from mbrl_async.analysis.comparison import Comparison
from mbrl_async.analysis.curves import Curve
from mbrl_async.analysis.objectives import RETURN, Objective
from mbrl_async.analysis.series import ComparedRun, Series
from mbrl_async.analysis.speedup import AXES
from mbrl_async.analysis.statistics import Estimate


@dataclass(frozen=True)
class Row:
    """One number of the CSV."""

    task: str
    series: str
    quantity: str
    x: float | str
    unit: str
    """Of x; empty where there is none."""
    statistic: str
    value: float
    low: float | str
    high: float | str
    """Ends of the interval; empty with one seed."""
    seeds: str


@dataclass(frozen=True)
class TrajectoryRow:
    """One objective of one trajectory."""

    task: str
    series: str
    seed: int
    run: str
    trajectory: int
    """Counted from 1."""
    env_steps: int
    """Of the run until then."""
    seconds: float
    """On the run's clock."""
    quantity: str
    value: float


def write_numbers(comparison: Comparison, path: Path) -> None:
    """Curves, final values, speed-ups and what explains them, a `Row` a line."""
    _write(path, Row, _rows(comparison))


def write_trajectories(comparison: Comparison, path: Path) -> None:
    """What the runs returned, unsmoothed, a `TrajectoryRow` a line."""
    _write(path, TrajectoryRow, _trajectory_rows(comparison))


def _write(path: Path, kind: type[Row | TrajectoryRow], rows: Iterable[Row | TrajectoryRow]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(kind.__dataclass_fields__)
        writer.writerows(astuple(row) for row in rows)


def _trajectory_rows(comparison: Comparison) -> Iterator[TrajectoryRow]:
    for series in (summary.series for summary in comparison.summaries):
        for run in series.runs:
            for objective in comparison.objectives:
                if (curve := run.curves.get(objective.metric)) is not None:
                    yield from _rows_of_curve(series, run, objective.title, curve)


def _rows_of_curve(series: Series, run: ComparedRun, quantity: str, curve: Curve) -> Iterator[TrajectoryRow]:
    numbers = zip(curve.env_steps, curve.seconds, curve.values, strict=True)
    for trajectory, (steps, seconds, value) in enumerate(numbers, start=1):
        when = (trajectory, int(steps), round(float(seconds), 3))
        yield TrajectoryRow(series.task, series.label, run.seed, run.run_id, *when, quantity, float(value))


def final_title(objective: Objective) -> str:
    """Of the mean over the last trajectories."""
    return "final return" if objective == RETURN else objective.last


def _rows(comparison: Comparison) -> Iterator[Row]:
    for curve in comparison.curves:
        for name, estimate in curve.estimates.items():
            for index, x in enumerate(curve.x):
                yield _row(curve.series, curve.objective.title, x, AXES[curve.axis], name, estimate.number(index))
    for summary in comparison.summaries:
        for objective, final in summary.final.items():
            for name, estimate in final.items():
                yield _row(summary.series, final_title(objective), "", "", name, estimate)
        for name, value in summary.measures.items():
            yield _row(summary.series, name, "", "", "mean", Estimate(np.array([value]), None))
    for each in comparison.speedups:
        unit = AXES[each.axis]
        quantities = {
            "threshold": each.threshold,
            f"baseline needs ({unit})": each.baseline_needs,
            f"series needs ({unit})": each.series_needs,
            f"speed-up ({unit})": each.ratio,
        }
        for name, estimate in quantities.items():
            yield _row(each.series, name, each.fraction, f"of {each.baseline.label}'s gain", "mean", estimate)
    yield from _rows_of_reaches(comparison)
    for overall in comparison.overall:
        low, high = _ends(overall.ratio)
        tasks, series = " ".join(overall.tasks), f"{overall.algorithm} {overall.schedule}"
        quantity, value = f"speed-up ({AXES[overall.axis]})", float(overall.ratio.value[0])
        yield Row(tasks, series, quantity, overall.fraction, "", "geometric mean", value, low, high, "")


def _rows_of_reaches(comparison: Comparison) -> Iterator[Row]:
    for each in comparison.reaches:
        unit = AXES[each.axis]
        quantities = {
            f"needs ({unit})": each.needs,
            f"baseline needs ({unit})": each.baseline_needs,
            f"speed-up ({unit})": each.ratio,
        }
        for name, estimate in quantities.items():
            if estimate is not None:
                yield _row(each.series, name, each.threshold, each.objective.title, "mean", estimate)


def _row(series: Series, quantity: str, x: float | str, unit: str, statistic: str, estimate: Estimate) -> Row:
    low, high = _ends(estimate)
    seeds = " ".join(str(run.seed) for run in series.runs)
    return Row(series.task, series.label, quantity, x, unit, statistic, float(estimate.value[0]), low, high, seeds)


def _ends(estimate: Estimate) -> tuple[float | str, float | str]:
    if estimate.interval is None:
        return "", ""
    low, high = estimate.interval
    return float(low[0]), float(high[0])
