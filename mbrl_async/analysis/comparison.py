"""Everything that a comparison says, as numbers: read from MLflow alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run

from mbrl_async.analysis.baselines import baseline_of, without_baseline
from mbrl_async.analysis.curves import Array, read_curve
from mbrl_async.analysis.flags import flags
from mbrl_async.analysis.measures import MEASURES, read_measures
from mbrl_async.analysis.objectives import RETURN, Objective
from mbrl_async.analysis.paper_curves import PaperCurve, paper_curve
from mbrl_async.analysis.series import ComparedRun, Series, make_series
from mbrl_async.analysis.speedup import Reach, Speedup, gains, overall_ratio, reach, share_unlearned, speedup
from mbrl_async.analysis.statistics import Estimate, Resampling, estimate, interquartile_mean, mean
from mbrl_async.tracking.run import current_parameters

Pair = tuple[Series, Series]
"""A series and its baseline."""

PAPER_LENGTHS = {"env.horizon": 200.0, "pace.factor": 1.0}
"""Of the authors' trajectories; a run of before these were settings has the same."""

STATISTICS = {"mean": mean, "interquartile mean": interquartile_mean}


class NothingToCompareError(Exception):
    """No finished run has what a comparison needs; the message says what to do."""


@dataclass(frozen=True)
class SeriesCurve:
    """An objective of one series against one axis."""

    series: Series
    objective: Objective
    axis: str
    """One of the objective's."""
    x: Array  # (G,)
    estimates: dict[str, Estimate]  # (G,)
    """A key of `STATISTICS` -> its curve."""
    paper: PaperCurve | None
    """The authors' return on this task with this algorithm and schedule, with their settings."""


@dataclass(frozen=True)
class SeriesSummary:
    """The numbers of one series."""

    series: Series
    final: dict[Objective, dict[str, Estimate]]  # (1,)
    """Of the last trajectories: a key of `STATISTICS` -> the number."""
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
    pairs: Sequence[Pair]
    """Those that have a baseline."""
    speedups: Sequence[Speedup]
    """Of the return."""
    reaches: Sequence[Reach]
    """Of the other objectives."""
    overall: Sequence[OverallSpeedup]

    @property
    def tasks(self) -> list[str]:
        """In a fixed order."""
        return sorted({summary.series.task for summary in self.summaries})

    @property
    def objectives(self) -> list[Objective]:
        """Those that some series has, the return first."""
        return list(dict.fromkeys(each.objective for each in self.curves))

    def thresholds(self, objective: Objective) -> list[float]:
        """The given ones; those of the return depend on the baseline."""
        return list(dict.fromkeys(each.threshold for each in self.reaches if each.objective == objective))


def compare(
    title: str,
    runs: Sequence[ComparedRun],
    *,
    baselines: Sequence[str],
    fractions: Sequence[float],
    outcomes: Mapping[Objective, Sequence[float]],
    resampling: Resampling,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare runs.

    Args:
        title: of the report.
        runs: at least one.
        baselines: schedules that others are compared with: see `baseline_of`.
        fractions: of the way from random actions to the baseline's final return: the return's thresholds.
        outcomes: what is compared besides the return, where the runs have it -> its thresholds.
        resampling: how intervals are made.
        notes: what else has to be known of the runs: more flags.
    """
    series, left_out = make_series(runs)
    pairs = [(each, base) for each in series if (base := baseline_of(each, series, baselines)) is not None]
    objectives = [RETURN, *outcomes]
    comparable = [pair for pair in pairs if _learned(pair[1])]
    return Comparison(
        title=title,
        confidence=resampling.confidence,
        flags=[
            *notes,
            *flags(series),
            *left_out,
            *without_baseline(series, baselines),
            *_unlearned(pairs),
            *_sometimes_unlearned(comparable, resampling),
            *_without_overall(comparable),
        ],
        curves=[
            _curve(each, objective, axis, resampling)
            for each in series
            for objective in _had(each, objectives)
            for axis in objective.axes
        ],
        summaries=[_summary(each, objectives, resampling) for each in series],
        pairs=pairs,
        speedups=[
            speedup(*pair, axis, fraction, resampling)
            for pair in comparable
            for axis in RETURN.axes
            for fraction in fractions
        ],
        reaches=list(_reaches(series, baselines, outcomes, resampling)),
        overall=list(_overall(comparable, fractions, resampling)),
    )


def read_compared_runs(client: MlflowClient, runs: Sequence[Run], outcomes: Collection[Objective]) -> list[ComparedRun]:
    """What a comparison needs of finished runs of this program.

    Raises:
        NothingToCompareError: none of them has collected a trajectory.
    """
    compared = [_read(client, run, outcomes) for run in runs if RETURN.metric in run.data.metrics]
    if not compared:
        raise NothingToCompareError("No finished run with a trajectory was found: wait for one, or look in mlflow ui.")
    return compared


def _read(client: MlflowClient, run: Run, outcomes: Collection[Objective]) -> ComparedRun:
    metrics = [each.metric for each in (RETURN, *outcomes) if each.metric in run.data.metrics]
    return ComparedRun(
        run_id=run.info.run_id,
        started=run.info.start_time,
        tags=run.data.tags,
        parameters=current_parameters(run),
        curves={name: read_curve(client, run.info.run_id, name, run.info.start_time) for name in metrics},
        measures=read_measures(client, run.info.run_id, run.data.metrics),
    )


def _had(series: Series, objectives: Sequence[Objective]) -> list[Objective]:
    """Those that the series has."""
    return [each for each in objectives if series.has(each.metric)]


def _curve(series: Series, objective: Objective, axis: str, resampling: Resampling) -> SeriesCurve:
    aligned = series.aligned(objective.metric, axis)
    estimates = {
        name: estimate(partial(statistic, aligned.values), (len(series.runs),), resampling)
        for name, statistic in STATISTICS.items()
    }
    paper = _paper_curve(series, axis) if objective == RETURN else None
    return SeriesCurve(series, objective, axis, aligned.x, estimates, paper)


def _paper_curve(series: Series, axis: str) -> PaperCurve | None:
    if not _takes_as_long(series, axis):
        return None
    return paper_curve(
        task=series.task, algorithm=series.algorithm, schedule=series.schedule, variant=series.variant, axis=axis
    )


def _takes_as_long(series: Series, axis: str) -> bool:
    """Whether trajectories are as long as the authors', in steps and, where it matters, in time."""
    horizon, pace = (float(series.parameters.get(name, usual)) for name, usual in PAPER_LENGTHS.items())
    return horizon == PAPER_LENGTHS["env.horizon"] and (axis != "seconds" or pace == PAPER_LENGTHS["pace.factor"])


def _summary(series: Series, objectives: Sequence[Objective], resampling: Resampling) -> SeriesSummary:
    final = {
        objective: {
            name: estimate(partial(statistic, series.last(objective.metric)), (len(series.runs),), resampling)
            for name, statistic in STATISTICS.items()
        }
        for objective in _had(series, objectives)
    }
    values = {name: [run.measures[name] for run in series.runs if name in run.measures] for name in MEASURES}
    return SeriesSummary(series, final, {name: float(np.mean(each)) for name, each in values.items() if each})


def _reaches(
    series: Sequence[Series],
    baselines: Sequence[str],
    outcomes: Mapping[Objective, Sequence[float]],
    resampling: Resampling,
) -> Iterator[Reach]:
    for objective, thresholds in outcomes.items():
        having = [each for each in series if each.has(objective.metric)]
        for each in having:
            baseline = baseline_of(each, having, baselines)
            for axis in objective.axes:
                for threshold in thresholds:
                    yield reach(each, baseline, objective, axis, threshold, resampling)


def _learned(baseline: Series) -> bool:
    return float(gains(baseline).mean()) > 0


def _unlearned(pairs: Sequence[Pair]) -> list[str]:
    failed = dict.fromkeys(f"{base.task}: {base.label}" for _, base in pairs if not _learned(base))
    return [f"{name} earned no more at its end than random actions did: no speed-up is defined." for name in failed]


def _sometimes_unlearned(pairs: Sequence[Pair], resampling: Resampling) -> list[str]:
    baselines = {(base.task, base.label): base for _, base in pairs}
    shares = {names: share_unlearned(base, resampling) for names, base in baselines.items()}
    return [
        f"{task}: {label} learned nothing in {share:.1%} of the resamples, which intervals of speed-ups lack."
        for (task, label), share in shares.items()
        if share > 0
    ]


def _overall(pairs: Sequence[Pair], fractions: Sequence[float], resampling: Resampling) -> Iterator[OverallSpeedup]:
    """One for each setting that has several tasks, and each of them once: variants of one task are no tasks."""
    for (algorithm, schedule), same in _on_several_tasks(pairs).items():
        tasks = [series.task for series, _ in same]
        if len(set(tasks)) < len(tasks):
            continue
        for axis in RETURN.axes:
            for fraction in fractions:
                ratio = overall_ratio(same, axis, fraction, resampling)
                yield OverallSpeedup(algorithm, schedule, tasks, axis, fraction, ratio)


def _without_overall(pairs: Sequence[Pair]) -> Iterator[str]:
    """A sentence for each setting that has several tasks, and no speed-up over all of them."""
    for (algorithm, schedule), same in _on_several_tasks(pairs).items():
        count = Counter(series.task for series, _ in same)
        several = ", ".join(sorted(task for task, number in count.items() if number > 1))
        if several:
            yield f"{algorithm}, {schedule} has several settings on {several}: there is no speed-up over all tasks."


def _on_several_tasks(pairs: Sequence[Pair]) -> dict[tuple[str, str], list[Pair]]:
    """Algorithm and schedule -> their series and baselines."""
    settings: dict[tuple[str, str], list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair[0].algorithm, pair[0].schedule)):
        settings.setdefault((pair[0].algorithm, pair[0].schedule), []).append(pair)
    return {setting: same for setting, same in settings.items() if len({series.task for series, _ in same}) > 1}
