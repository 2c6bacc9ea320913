"""Everything that a comparison says, as numbers: read from MLflow alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run

from mbrl_async.analysis.curves import Array, read_curve
from mbrl_async.analysis.flags import flags
from mbrl_async.analysis.measures import MEASURES, read_measures
from mbrl_async.analysis.paper_curves import PaperCurve, paper_curve
from mbrl_async.analysis.series import ComparedRun, Series, make_series
from mbrl_async.analysis.speedup import AXES, Speedup, baseline_of, overall_ratio, speedup
from mbrl_async.analysis.statistics import Estimate, Resampling, estimate, interquartile_mean, mean

RETURN = "collect/return"

STATISTICS = {"mean": mean, "interquartile mean": interquartile_mean}


class NothingToCompareError(Exception):
    """No finished run has what a comparison needs; the message says what to do."""


@dataclass(frozen=True)
class SeriesCurve:
    """One series against one axis."""

    series: Series
    axis: str
    """A key of `AXES`."""
    x: Array  # (G,)
    estimates: dict[str, Estimate]  # (G,)
    """A key of `STATISTICS` -> its curve."""
    paper: PaperCurve | None
    """The authors' curve of the same setting."""


@dataclass(frozen=True)
class SeriesSummary:
    """The numbers of one series."""

    series: Series
    final_return: dict[str, Estimate]  # (1,)
    measures: dict[str, float]
    """Means over the seeds of what `measures.py` reads."""


@dataclass(frozen=True)
class OverallSpeedup:
    """Of one algorithm under one schedule, over several tasks."""

    algorithm: str
    schedule: str
    tasks: Sequence[str]
    axis: str
    fraction: float
    ratio: Estimate  # (1,)


@dataclass(frozen=True)
class Comparison:
    """What `report.py` writes down."""

    title: str
    confidence: float
    """Of the intervals."""
    flags: Sequence[str]
    curves: Sequence[SeriesCurve]
    summaries: Sequence[SeriesSummary]
    speedups: Sequence[Speedup]
    overall: Sequence[OverallSpeedup]

    @property
    def tasks(self) -> list[str]:
        """In a fixed order."""
        return sorted({summary.series.task for summary in self.summaries})


def compare(
    title: str,
    runs: Sequence[ComparedRun],
    *,
    baselines: Sequence[str],
    fractions: Sequence[float],
    resampling: Resampling,
) -> Comparison:
    """Compare runs.

    Args:
        title: of the report.
        runs: at least one.
        baselines: schedules that others are compared with; of each task and algorithm the first that was run.
        fractions: of the way from random actions to the baseline's final return: the thresholds.
        resampling: how intervals are made.
    """
    series, left_out = make_series(runs)
    pairs = [(each, base) for each in series if (base := baseline_of(each, series, baselines)) is not None]
    comparable = [pair for pair in pairs if _learned(pair[1])]
    return Comparison(
        title=title,
        confidence=resampling.confidence,
        flags=[*flags(series), *left_out, *_unlearned(pairs)],
        curves=[_curve(each, axis, resampling) for each in series for axis in AXES],
        summaries=[_summary(each, resampling) for each in series],
        speedups=[
            speedup(*pair, axis, fraction, resampling) for pair in comparable for axis in AXES for fraction in fractions
        ],
        overall=list(_overall(comparable, fractions, resampling)),
    )


def read_compared_runs(client: MlflowClient, runs: Sequence[Run]) -> list[ComparedRun]:
    """What a comparison needs of finished runs of this program.

    Raises:
        NothingToCompareError: none of them has collected a trajectory.
    """
    compared = [_read(client, run) for run in runs if RETURN in run.data.metrics]
    if not compared:
        raise NothingToCompareError("No finished run with a trajectory was found: wait for one, or look in mlflow ui.")
    return compared


def _read(client: MlflowClient, run: Run) -> ComparedRun:
    return ComparedRun(
        run_id=run.info.run_id,
        started=run.info.start_time,
        tags=run.data.tags,
        parameters=run.data.params,
        returns=read_curve(client, run.info.run_id, RETURN, run.info.start_time),
        measures=read_measures(client, run.info.run_id, run.data.metrics),
    )


def _curve(series: Series, axis: str, resampling: Resampling) -> SeriesCurve:
    aligned = series.aligned(axis)
    estimates = {
        name: estimate(partial(statistic, aligned.values), (len(series.runs),), resampling)
        for name, statistic in STATISTICS.items()
    }
    paper = paper_curve(
        task=series.task, algorithm=series.algorithm, schedule=series.schedule, variant=series.variant, axis=axis
    )
    return SeriesCurve(series, axis, aligned.x, estimates, paper)


def _summary(series: Series, resampling: Resampling) -> SeriesSummary:
    final = {
        name: estimate(partial(statistic, series.last_returns), (len(series.runs),), resampling)
        for name, statistic in STATISTICS.items()
    }
    values = {name: [run.measures[name] for run in series.runs if name in run.measures] for name in MEASURES}
    return SeriesSummary(series, final, {name: float(np.mean(each)) for name, each in values.items() if each})


def _learned(baseline: Series) -> bool:
    return float(baseline.last_returns.mean()) > float(baseline.first_returns.mean())


def _unlearned(pairs: Sequence[tuple[Series, Series]]) -> list[str]:
    failed = dict.fromkeys(f"{base.task}: {base.label}" for _, base in pairs if not _learned(base))
    return [f"{name} earned no more at its end than random actions did: no speed-up is defined." for name in failed]


def _overall(
    pairs: Sequence[tuple[Series, Series]], fractions: Sequence[float], resampling: Resampling
) -> Iterator[OverallSpeedup]:
    """One for each setting that has several tasks."""
    for algorithm, schedule in sorted({(series.algorithm, series.schedule) for series, _ in pairs}):
        same = [pair for pair in pairs if (pair[0].algorithm, pair[0].schedule) == (algorithm, schedule)]
        tasks = [series.task for series, _ in same]
        if len(set(tasks)) < len(same) or len(same) < 2:  # variants of one task are no tasks
            continue
        for axis in AXES:
            for fraction in fractions:
                ratio = overall_ratio(same, axis, fraction, resampling)
                yield OverallSpeedup(algorithm, schedule, tasks, axis, fraction, ratio)
