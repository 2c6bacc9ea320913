"""How much sooner, and with how many fewer samples, one way of running comes to what another one achieves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbrl_async.analysis.curves import Array
from mbrl_async.analysis.series import AlignedCurves, Series
from mbrl_async.analysis.statistics import Estimate, Resampling, estimate, mean

AXES = {"seconds": "run time (s)", "env_steps": "environment steps"}
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
class _Pair:
    """The curves of a series and its baseline, and where the baseline began."""

    base: AlignedCurves
    other: AlignedCurves
    base_start: Array  # (N, 1)

    def crossings(self, fraction: float, base_runs: Array, other_runs: Array) -> Array:
        """Threshold, need of the baseline, need of the series, and their ratio, (..., 4), of the chosen runs."""
        base = mean(self.base.values, base_runs)  # (..., G)
        start = mean(self.base_start, base_runs)[..., 0]
        threshold = start + fraction * (base[..., -1] - start)  # (...)
        base_needs = first_reached(self.base.x, base, threshold)
        other_needs = first_reached(self.other.x, mean(self.other.values, other_runs), threshold)
        return np.stack((threshold, base_needs, other_needs, base_needs / other_needs), axis=-1)


def first_reached(x: Array, curves: Array, threshold: Array) -> Array:
    """The first of the positions `x` (G,) where curves (..., G) are at their threshold (...) or above; or infinity."""
    reached = curves >= threshold[..., None]
    needed: Array = np.where(reached.any(axis=-1), x[reached.argmax(axis=-1)], np.inf)
    return needed


def speedup(series: Series, baseline: Series, axis: str, fraction: float, resampling: Resampling) -> Speedup:
    """Compare two series; every resample has a threshold of its own, because the baseline's seeds are a sample, too."""
    pair = _pair(series, baseline, axis)
    result = estimate(
        lambda base_runs, other_runs: pair.crossings(fraction, base_runs, other_runs),
        (len(baseline.runs), len(series.runs)),
        resampling,
    )
    return Speedup(series, baseline, axis, fraction, *(result.number(index) for index in range(4)))


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
    compared = [_pair(series, baseline, axis) for series, baseline in pairs]
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


def _pair(series: Series, baseline: Series, axis: str) -> _Pair:
    return _Pair(baseline.aligned(axis), series.aligned(axis), baseline.first_returns)
