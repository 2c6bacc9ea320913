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
    """When the mean curves of a series and of its baseline, which learned something, reach a return."""

    series: Series
    baseline: Series
    axis: str
    """A key of `AXES`."""
    fraction: float
    """Of the way from random actions to the baseline's final return."""
    threshold: Estimate  # (1,)
    baseline_needs: Estimate  # (1,)
    series_needs: Estimate  # (1,); infinity: not within the run
    ratio: Estimate  # (1,)
    """Baseline's / series'; 0 if the series does not get there. The baseline always does, at its end at the latest."""


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

    def threshold(self, fraction: float, base_runs: Array) -> Array:
        """So far on the way from the first to the last of the chosen runs' returns, (...).

        NaN where they earned no more in the end: there is no such way, and every curve would be at its end at once.
        """
        start = mean(self.base_start, base_runs)[..., 0]
        end = mean(self.base.values, base_runs)[..., -1]
        threshold = (1 - fraction) * start + fraction * end  # exactly the end if that is asked for
        return np.where(end > start, threshold, np.nan)

    def base_needs(self, threshold: Array, base_runs: Array) -> Array:
        """Where the baseline's chosen runs come to the threshold (...), (...)."""
        return _needed(self.base, base_runs, threshold, self.objective)

    def other_needs(self, threshold: Array, other_runs: Array) -> Array:
        """Where the other series' chosen runs come to the threshold (...), (...)."""
        return _needed(self.other, other_runs, threshold, self.objective)

    def ratio(self, threshold: Array, base_runs: Array, other_runs: Array) -> Array:
        """Of the two needs, (...)."""
        return _ratio(self.base_needs(threshold, base_runs), self.other_needs(threshold, other_runs))


def _ratio(base_needs: Array, other_needs: Array) -> Array:
    """0 where the other series does not get there, NaN where there is nothing to get to."""
    ratio: Array = np.divide(base_needs, other_needs, out=np.zeros_like(base_needs), where=~np.isinf(other_needs))
    return ratio


def _needed(curves: AlignedCurves, runs: Array, threshold: Array, objective: Objective) -> Array:
    """Where the mean of the chosen runs comes to the threshold (...), (...)."""
    return first_reached(curves.x, mean(curves.values, runs), threshold, objective)


def first_reached(x: Array, curves: Array, threshold: Array, objective: Objective) -> Array:
    """The first of the positions `x` (G,) where curves (..., G) are as good as their threshold (...).

    Infinity: they never are; NaN: the threshold is.
    """
    reached = objective.sign * curves >= objective.sign * threshold[..., None]
    needed = np.where(reached.any(axis=-1), x[reached.argmax(axis=-1)], np.inf)
    return np.where(np.isnan(threshold), np.nan, needed)


def speedup(series: Series, baseline: Series, axis: str, fraction: float, resampling: Resampling) -> Speedup:
    """Compare two series; every resample has a threshold of its own, because the baseline's seeds are a sample, too."""
    pair = _pair(series, baseline, RETURN, axis)

    def of_baseline(base_runs: Array) -> Array:
        threshold = pair.threshold(fraction, base_runs)
        return np.stack((threshold, pair.base_needs(threshold, base_runs)), axis=-1)

    def of_both(base_runs: Array, other_runs: Array) -> Array:
        threshold = pair.threshold(fraction, base_runs)
        other_needs = pair.other_needs(threshold, other_runs)
        return np.stack((other_needs, _ratio(pair.base_needs(threshold, base_runs), other_needs)), axis=-1)

    alone = estimate(of_baseline, (len(baseline.runs),), resampling)
    both = estimate(of_both, (len(baseline.runs), len(series.runs)), resampling)
    numbers = (each.number(index) for each in (alone, both) for index in range(2))
    return Speedup(series, baseline, axis, fraction, *numbers)


def share_unlearned(baseline: Series, resampling: Resampling) -> float:
    """Share of resamples of a baseline in which it earned no more in the end than at first, so that none counts."""
    gained = gains(baseline)
    drawn = resampling.generator.integers(len(gained), size=(resampling.resamples, len(gained)))
    return float((gained[drawn].mean(axis=1) <= 0).mean())


def gains(baseline: Series) -> Array:
    """How much more than its first trajectory each run earned in the end, (N,)."""
    return (baseline.held(RETURN.metric, "trajectories").values[:, -1:] - baseline.first(RETURN.metric))[:, 0]


def reach(
    series: Series,
    baseline: Series | None,
    objective: Objective,
    axis: str,
    threshold: float,
    resampling: Resampling,
) -> Reach:
    """When a series is as good as the threshold, which is the same in every resample."""
    value = np.array(threshold)
    needs = _needs(series, objective, axis, value, resampling)
    if baseline is None:
        return Reach(series, objective, axis, threshold, needs, None, None, None)
    pair = _pair(series, baseline, objective, axis)
    ratio = estimate(
        lambda base_runs, other_runs: pair.ratio(value, base_runs, other_runs)[..., None],
        (len(baseline.runs), len(series.runs)),
        resampling,
    )
    base_needs = _needs(baseline, objective, axis, value, resampling)
    return Reach(series, objective, axis, threshold, needs, baseline, base_needs, ratio)


def _needs(series: Series, objective: Objective, axis: str, threshold: Array, resampling: Resampling) -> Estimate:
    curves = series.held(objective.metric, axis)
    return estimate(
        lambda runs: _needed(curves, runs, threshold, objective)[..., None],
        (len(series.runs),),
        resampling,
    )


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
            pair.ratio(pair.threshold(fraction, base_runs), base_runs, other_runs)
            for pair, base_runs, other_runs in zip(compared, runs[0::2], runs[1::2], strict=True)
        ]
        with np.errstate(divide="ignore"):  # nought in one task is nought over all
            logarithms = np.log(np.stack(ratios, axis=-1))
        average: Array = np.exp(logarithms.mean(axis=-1, keepdims=True))
        return average

    return estimate(geometric_mean, sizes, resampling)


def _pair(series: Series, baseline: Series, objective: Objective, axis: str) -> _Pair:
    metric = objective.metric
    return _Pair(baseline.held(metric, axis), series.held(metric, axis), baseline.first(metric), objective)
