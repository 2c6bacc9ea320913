"""How soon, and with how many samples, one way of running comes to a threshold, and how much sooner than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbrl_async.analysis.curves import Array
from mbrl_async.analysis.objectives import RETURN, Objective
from mbrl_async.analysis.series import AlignedCurves, Series
from mbrl_async.analysis.statistics import Estimate, Resampling, estimate, mean

AXES = {"seconds": "run time (s)", "env_steps": "environment steps", "trajectories": "trajectories"}
"""What a speed-up can be in -> its unit."""


@dataclass(frozen=True)
class Speedup:
    """When the mean curves of a series and of its baseline reach a return. Infinity: not within the run."""

    series: Series
    baseline: Series
    axis: str
    """A key of `AXES`."""
    fraction: float
    """Of the way from random actions to the baseline's final return."""
    threshold: Estimate  # (1,)
    baseline_needs: Estimate  # (1,)
    series_needs: Estimate  # (1,)
    ratio: Estimate  # (1,)
    """Baseline's / series'; 0 if the series does not get there."""


@dataclass(frozen=True)
class Reach:
    """When the mean curve of a series, and of its baseline if it has one, is as good as a given value."""

    series: Series
    objective: Objective
    axis: str
    """A key of `AXES`."""
    threshold: float
    needs: Estimate  # (1,); infinity: not within the run
    baseline: Series | None
    baseline_needs: Estimate | None  # (1,)
    ratio: Estimate | None  # (1,)
    """Baseline's / series'; 0 if the series does not get there, infinity if the baseline alone does not."""


@dataclass(frozen=True)
class _Pair:
    """The curves of a series and its baseline, and where the baseline began."""

    base: AlignedCurves
    other: AlignedCurves
    base_start: Array  # (N, 1)
    objective: Objective

    def crossings(self, fraction: float, base_runs: Array, other_runs: Array) -> Array:
        """Threshold, need of the baseline, need of the series, and their ratio, (..., 4), of the chosen runs."""
        base = mean(self.base.values, base_runs)  # (..., G)
        start = mean(self.base_start, base_runs)[..., 0]
        threshold = start + fraction * (base[..., -1] - start)  # (...)
        return np.concatenate((threshold[..., None], self.needs(threshold, base_runs, other_runs)), axis=-1)

    def needs(self, threshold: Array, base_runs: Array, other_runs: Array) -> Array:
        """Need of the baseline, need of the series, and their ratio, (..., 3), to the threshold (...)."""
        base_needs = first_reached(self.base.x, mean(self.base.values, base_runs), threshold, self.objective)
        other_needs = first_reached(self.other.x, mean(self.other.values, other_runs), threshold, self.objective)
        ratio = np.divide(base_needs, other_needs, out=np.zeros_like(base_needs), where=np.isfinite(other_needs))
        return np.stack((base_needs, other_needs, ratio), axis=-1)


def first_reached(x: Array, curves: Array, threshold: Array, objective: Objective) -> Array:
    """The first of the positions `x` (G,) where curves (..., G) are as good as their threshold (...); or infinity."""
    reached = objective.sign * curves >= objective.sign * threshold[..., None]
    needed: Array = np.where(reached.any(axis=-1), x[reached.argmax(axis=-1)], np.inf)
    return needed


def speedup(series: Series, baseline: Series, axis: str, fraction: float, resampling: Resampling) -> Speedup:
    """Compare two series; every resample has a threshold of its own, because the baseline's seeds are a sample, too."""
    pair = _pair(series, baseline, RETURN, axis)
    result = estimate(
        lambda base_runs, other_runs: pair.crossings(fraction, base_runs, other_runs),
        (len(baseline.runs), len(series.runs)),
        resampling,
    )
    return Speedup(series, baseline, axis, fraction, *(result.number(index) for index in range(4)))


def reach(
    series: Series,
    baseline: Series | None,
    objective: Objective,
    axis: str,
    threshold: float,
    resampling: Resampling,
) -> Reach:
    """When a series is as good as the threshold, which is the same in every resample."""
    if baseline is None:
        curves = series.aligned(objective.metric, axis)
        needs = estimate(
            lambda runs: first_reached(curves.x, mean(curves.values, runs), np.array(threshold), objective)[..., None],
            (len(series.runs),),
            resampling,
        )
        return Reach(series, objective, axis, threshold, needs, None, None, None)
    pair = _pair(series, baseline, objective, axis)
    result = estimate(
        lambda base_runs, other_runs: pair.needs(np.array(threshold), base_runs, other_runs),
        (len(baseline.runs), len(series.runs)),
        resampling,
    )
    base_needs, needs, ratio = (result.number(index) for index in range(3))
    return Reach(series, objective, axis, threshold, needs, baseline, base_needs, ratio)


def overall_ratio(
    pairs: Sequence[tuple[Series, Series]], axis: str, fraction: float, resampling: Resampling
) -> Estimate:
    """The geometric mean of the speed-ups of several tasks, resampled within each task and series.

    Args:
        pairs: series and baseline of each task.
        axis: a key of `AXES`.
        fraction: see `Speedup`.
        resampling: how.
    """
    compared = [_pair(series, baseline, RETURN, axis) for series, baseline in pairs]
    sizes = [len(each.runs) for series, baseline in pairs for each in (baseline, series)]

    def geometric_mean(*runs: Array) -> Array:
        ratios = [
            pair.crossings(fraction, base_runs, other_runs)[..., 3]
            for pair, base_runs, other_runs in zip(compared, runs[0::2], runs[1::2], strict=True)
        ]
        product: Array = np.stack(ratios, axis=-1).prod(axis=-1, keepdims=True)
        return product ** (1 / len(ratios))

    return estimate(geometric_mean, sizes, resampling)


def baseline_of(series: Series, others: Sequence[Series], schedules: Sequence[str]) -> Series | None:
    """The series of the same task, algorithm and backend under the first of the schedules that there is.

    Of several, the one of the same variant; None if there is no such one: to choose the best of them would be unfair.
    """
    if series.schedule in schedules:
        return None
    alike = [each for each in others if _setting(each) == _setting(series)]
    for schedule in schedules:
        candidates = [each for each in alike if each.schedule == schedule]
        if len(candidates) > 1:
            candidates = [each for each in candidates if each.variant == series.variant]
        if candidates:
            return candidates[0]
    return None


def _setting(series: Series) -> tuple[str, str, str]:
    return series.task, series.algorithm, series.backend


def _pair(series: Series, baseline: Series, objective: Objective, axis: str) -> _Pair:
    metric = objective.metric
    return _Pair(baseline.aligned(metric, axis), series.aligned(metric, axis), baseline.first(metric), objective)
