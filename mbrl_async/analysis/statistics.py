"""Statistics over seeds. The seed is the unit: what is resampled is whole runs, never points of a curve."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, trim_mean

from mbrl_async.analysis.curves import Array

Statistic = Callable[..., Array]
"""Takes one array of run indices a stratum, (..., N) each, and gives K numbers, (..., K)."""

BATCH = 250
"""Resamples at a time: curves of real runs have thousands of points."""

TRIMMED = 0.25
"""Cut from each end by the interquartile mean; of fewer than four seeds that is none, and it is the mean."""


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Args:
        confidence: probability that an interval is meant to have.
        resamples: bootstrap resamples.
        generator: draws them.
    """

    confidence: float
    resamples: int
    generator: np.random.Generator


@dataclass(frozen=True)
class Estimate:
    """K numbers, such as the points of a curve."""

    value: Array  # (K,)
    interval: tuple[Array, Array] | None  # (K,), (K,)
    """Lower and upper ends; None where some stratum has a single run, so that nothing can be resampled."""

    def number(self, index: int) -> Estimate:
        """One of the K, by itself."""
        one = slice(index, index + 1)
        return Estimate(self.value[one], self.interval and (self.interval[0][one], self.interval[1][one]))


def mean(values: Array, indices: Array) -> Array:
    """Over the chosen runs: of `values` (N, G) at `indices` (..., n), (..., G)."""
    chosen: Array = values[indices].mean(axis=-2)
    return chosen


def interquartile_mean(values: Array, indices: Array) -> Array:
    """As `mean`, without the highest and the lowest quarter of the runs."""
    trimmed: Array = trim_mean(values[indices], TRIMMED, axis=-2)
    return trimmed


def estimate(statistic: Statistic, sizes: Sequence[int], resampling: Resampling) -> Estimate:
    """A statistic with its percentile bootstrap interval, stratified: each stratum's runs are resampled by themselves.

    Args:
        statistic: may give infinities. NaN: it is not defined for these runs, and the interval does without them.
        sizes: runs of each stratum.
        resampling: how.
    """
    strata = [np.arange(size) for size in sizes]
    value = statistic(*strata)
    if min(sizes) < 2:
        return Estimate(value, None)

    def with_resamples_last(*indices: Array, axis: int) -> Array:  # noqa: ARG001  (scipy asks with axis=-1)
        return np.moveaxis(statistic(*indices), -1, 0)

    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # scipy takes a standard deviation and an interval, too, also of infinities and of what is not defined
        warnings.simplefilter("ignore", DegenerateDataWarning)
        drawn: Any = bootstrap(
            strata,
            with_resamples_last,
            n_resamples=resampling.resamples,
            batch=BATCH,
            vectorized=True,
            axis=-1,
            method="percentile",
            rng=resampling.generator,
        )
    return Estimate(value, _interval(drawn.bootstrap_distribution, resampling.confidence))


def _interval(distribution: Array, confidence: float) -> tuple[Array, Array]:
    """Of resampled statistics (K, B). Quantiles are values that occurred: between infinities nothing can be drawn."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(distribution, (tail, 1 - tail), axis=-1, method="inverted_cdf")
    return low, high
