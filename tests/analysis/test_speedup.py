"""Speed-ups of curves that are straight lines, so that every crossing is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mbrl_async.analysis.objectives import RETURN
from mbrl_async.analysis.series import POINTS
from mbrl_async.analysis.speedup import baseline_of, first_reached, overall_ratio, reach, speedup
from mbrl_async.analysis.statistics import Resampling
from tests.analysis.synthetic import DISTANCE, run, series

RESOLUTION = 2 / POINTS
"""Of a crossing, as a share of where it is: curves have so many points, and these begin to be crossed after half."""

STEPS = 8000 / (POINTS - 1)
"""Between two points of a curve: from 10 x 200 to 50 x 200 environment steps."""


def resampling() -> Resampling:
    return Resampling(0.95, 400, np.random.default_rng(0))


def lines(schedule: str, slope: float, *, seconds: float = 10.0, seeds: int = 3, task: str = "hopper"):
    tags = {"schedule": schedule, "env": task}
    return series(*(run(seed, lambda n: slope * (n - 1), tags=tags, seconds=seconds) for seed in range(seeds)))


def test_the_first_position_at_the_threshold_counts():
    x = np.array([10.0, 20.0, 30.0])
    curves = np.array([[1.0, 3.0, 2.0], [0.0, 1.0, 1.0]])
    assert first_reached(x, curves, np.array([2.0, 2.0]), RETURN).tolist() == [20.0, np.inf]
    assert first_reached(x, -curves, np.array([-2.0, -2.0]), DISTANCE).tolist() == [20.0, np.inf]


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_twice_the_slope_needs_half_the_samples(fraction):
    """sync ends at a smoothed return of 44.5 after 50 trajectories; async gains twice as much with each."""
    result = speedup(lines("async", 2.0), lines("sync", 1.0), "env_steps", fraction, resampling())
    threshold = fraction * 44.5  # the first trajectory earns 0
    assert result.threshold.value == pytest.approx(threshold)
    assert result.baseline_needs.value == pytest.approx(200 * (threshold + 5.5), abs=STEPS)
    assert result.series_needs.value == pytest.approx(200 * (threshold / 2 + 5.5), abs=STEPS)
    assert result.ratio.value == pytest.approx((threshold + 5.5) / (threshold / 2 + 5.5), rel=2 * RESOLUTION)
    assert result.ratio.interval is not None
    assert result.ratio.interval == (result.ratio.value, result.ratio.value), "seeds that agree leave no doubt"


def test_the_same_curve_in_half_the_time():
    result = speedup(lines("async", 1.0, seconds=5.0), lines("sync", 1.0), "seconds", 1.0, resampling())
    assert result.ratio.value == pytest.approx(2.0, rel=2 * RESOLUTION)
    in_samples = speedup(lines("async", 1.0, seconds=5.0), lines("sync", 1.0), "env_steps", 1.0, resampling())
    assert in_samples.ratio.value == pytest.approx(1.0, rel=2 * RESOLUTION)


def test_what_is_not_reached_has_the_speed_up_nought():
    result = speedup(lines("async", 0.5), lines("sync", 1.0), "seconds", 1.0, resampling())
    assert result.series_needs.value == np.inf
    assert result.ratio.value == 0


def test_seeds_that_disagree_widen_the_interval():
    slow_and_fast = series(run(0, lambda n: n - 1), run(1, lambda n: 4 * (n - 1)), run(2, lambda n: 2 * (n - 1)))
    result = speedup(slow_and_fast, lines("sync", 1.0), "seconds", 1.0, resampling())
    assert result.ratio.interval is not None
    low, high = (float(end[0]) for end in result.ratio.interval)
    assert low == pytest.approx(1.0, rel=0.02), "all resampled runs are the slow one: as fast as sync"
    assert high == pytest.approx(50 / (44.5 / 4 + 5.5), rel=0.02), "all are the fast one"


def approaching(schedule: str, speed: float):
    """An arm that is 60 cm away, and comes nearer by `speed` cm with each trajectory of 50."""
    tags = {"schedule": schedule, "env": "arm_reach"}
    return series(*(run(seed, np.cos, tags=tags, distances=lambda n: 60 - speed * n) for seed in range(2)))


@pytest.mark.parametrize(
    ("threshold", "needs", "baseline_needs", "ratio"),
    [
        (30.0, 34.5, np.inf, np.inf),  # the mean of ten is 4.5 trajectories behind: 60 - (n - 4.5)
        (40.0, 24.5, 44.5, 44.5 / 24.5),
        (10.0, np.inf, np.inf, 0.0),
    ],
)
def test_a_distance_is_reached_from_above(threshold, needs, baseline_needs, ratio):
    near, far = approaching("async", 1.0), approaching("sync", 0.5)
    result = reach(near, far, DISTANCE, "trajectories", threshold, resampling())
    assert result.baseline_needs is not None
    assert result.ratio is not None
    assert result.needs.value == pytest.approx(needs, abs=40 / (POINTS - 1))
    assert result.baseline_needs.value == pytest.approx(baseline_needs, abs=40 / (POINTS - 1))
    assert result.ratio.value == pytest.approx(ratio, rel=2 * RESOLUTION)


def test_a_distance_is_reached_without_a_baseline_too():
    alone = reach(approaching("async", 1.0), None, DISTANCE, "seconds", 40.0, resampling())
    assert alone.needs.value == pytest.approx(245.0, abs=400 / (POINTS - 1))
    assert alone.ratio is None


def test_over_several_tasks_it_is_the_geometric_mean():
    pairs = [
        (lines("async", 1.0, seconds=5.0, task="hopper"), lines("sync", 1.0, task="hopper")),
        (lines("async", 1.0, seconds=1.25, task="ant", seeds=4), lines("sync", 1.0, task="ant", seeds=2)),
    ]
    result = overall_ratio(pairs, "seconds", 1.0, resampling())
    assert result.value == pytest.approx([4.0], rel=2 * RESOLUTION)  # of 2 and 8


def test_the_baseline_is_of_the_same_setting_and_never_a_choice_of_the_best():
    asynchronous, sync = lines("async", 2.0), lines("sync", 1.0)
    other_task = lines("sync", 1.0, task="ant")
    assert baseline_of(asynchronous, [asynchronous, sync, other_task], ["sync"]) is sync
    assert baseline_of(sync, [asynchronous, sync], ["sync"]) is None
    assert baseline_of(asynchronous, [asynchronous, other_task], ["sync"]) is None
    variants = [series_with_variant("sync", name) for name in ("weight=0.4", "weight=0.9")]
    assert baseline_of(asynchronous, variants, ["sync"]) is None
    assert baseline_of(series_with_variant("async", "weight=0.9"), variants, ["sync"]) is variants[1]
    in_order = lines("in_order", 1.0)
    assert baseline_of(asynchronous, [asynchronous, in_order], ["sync", "in_order"]) is in_order


def series_with_variant(schedule: str, variant: str):
    return replace(lines(schedule, 1.0), variant=variant)
