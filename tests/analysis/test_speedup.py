"""Speed-ups of curves that are straight lines, so that every crossing is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mbrl_async.analysis.objectives import RETURN
from mbrl_async.analysis.speedup import first_reached, overall_ratio, reach, share_unlearned, speedup
from mbrl_async.analysis.statistics import Resampling
from tests.analysis.synthetic import DISTANCE, run, series


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
    needs = [200 * np.ceil(threshold / slope + 5.5) for slope in (1, 2)]  # when a trajectory ends
    assert [result.baseline_needs.value[0], result.series_needs.value[0]] == needs
    assert result.ratio.value == needs[0] / needs[1]
    assert result.ratio.interval is not None
    assert result.ratio.interval == (result.ratio.value, result.ratio.value), "seeds that agree leave no doubt"


def test_the_same_curve_in_half_the_time():
    result = speedup(lines("async", 1.0, seconds=5.0), lines("sync", 1.0), "seconds", 1.0, resampling())
    assert result.ratio.value == 2.0
    in_samples = speedup(lines("async", 1.0, seconds=5.0), lines("sync", 1.0), "env_steps", 1.0, resampling())
    assert in_samples.ratio.value == 1.0


def test_what_is_not_reached_has_the_speed_up_nought():
    result = speedup(lines("async", 0.5), lines("sync", 1.0), "seconds", 1.0, resampling())
    assert result.series_needs.value == np.inf
    assert result.ratio.value == 0


def test_seeds_that_disagree_widen_the_interval():
    slow_and_fast = series(run(0, lambda n: n - 1), run(1, lambda n: 4 * (n - 1)), run(2, lambda n: 2 * (n - 1)))
    result = speedup(slow_and_fast, lines("sync", 1.0), "seconds", 1.0, resampling())
    assert result.ratio.interval is not None
    low, high = (float(end[0]) for end in result.ratio.interval)
    assert low == 1.0, "all resampled runs are the slow one: as fast as sync"
    assert high == 50 / np.ceil(44.5 / 4 + 5.5), "all are the fast one"


def approaching(schedule: str, speed: float):
    """An arm that is 60 cm away, and comes nearer by `speed` cm with each trajectory of 50."""
    tags = {"schedule": schedule, "env": "arm_reach"}
    return series(*(run(seed, np.cos, tags=tags, distances=lambda n: 60 - speed * n) for seed in range(2)))


@pytest.mark.parametrize(
    ("threshold", "needs", "baseline_needs", "ratio"),
    [
        (30.0, 35, np.inf, np.inf),  # the mean of ten is 4.5 trajectories behind: 60 - (n - 4.5)
        (40.0, 25, 45, 45 / 25),
        (10.0, np.inf, np.inf, 0.0),
    ],
)
def test_a_distance_is_reached_from_above(threshold, needs, baseline_needs, ratio):
    near, far = approaching("async", 1.0), approaching("sync", 0.5)
    result = reach(near, far, DISTANCE, "trajectories", threshold, resampling())
    assert result.baseline_needs is not None
    assert result.ratio is not None
    assert (result.needs.value, result.baseline_needs.value, result.ratio.value) == (needs, baseline_needs, ratio)


def test_a_distance_is_reached_without_a_baseline_too():
    alone = reach(approaching("async", 1.0), None, DISTANCE, "seconds", 40.0, resampling())
    assert alone.needs.value == 250.0
    assert alone.ratio is None


def test_over_several_tasks_it_is_the_geometric_mean():
    pairs = [
        (lines("async", 1.0, seconds=5.0, task="hopper"), lines("sync", 1.0, task="hopper")),
        (lines("async", 1.0, seconds=1.25, task="ant", seeds=4), lines("sync", 1.0, task="ant", seeds=2)),
    ]
    result = overall_ratio(pairs, "seconds", 1.0, resampling())
    assert result.value == pytest.approx([4.0])  # of 2 and 8


def test_nought_in_one_task_is_nought_over_all():
    pairs = [(lines("async", 9.0, task="hopper"), lines("sync", 1.0)), (lines("async", 0.1), lines("sync", 1.0))]
    assert overall_ratio(pairs, "seconds", 0.5, resampling()).value == [0.0]


def test_a_threshold_that_was_passed_between_two_others_trajectories_is_reached_then():
    """One good trajectory, however long the runs are: a drawn curve of few points would miss it."""
    peak = series(run(0, lambda n: np.where(n == 777, 1e6, n), trajectories=3000, tags={"schedule": "async"}))
    result = speedup(peak, lines("sync", 1e4), "trajectories", 0.2, resampling())
    assert result.series_needs.value == 777


def test_what_is_not_measured_yet_is_not_reached():
    """The value of a run changes where its trajectory ends, not on the way there."""
    slow, quick = run(0, lambda n: n, seconds=100.0), run(1, lambda n: 0 * n, seconds=30.0)
    held = series(slow, quick).held(RETURN.metric, "seconds")
    assert (held.x[:4].tolist(), held.values[0, :5].tolist()) == ([1000, 1020, 1050, 1080], [5.5, 5.5, 5.5, 5.5, 6.5])


def test_resamples_of_a_baseline_that_learned_nothing_have_no_speed_up():
    """Two of three seeds fell; where they are drawn alone, every curve would be at the baseline's end at once."""
    tags = {"schedule": "sync"}
    seeds = (lambda n: -n, lambda n: -n, lambda n: 10 * n)
    baseline = series(*(run(seed, each, tags=tags) for seed, each in enumerate(seeds)))
    result = speedup(lines("async", 1.0), baseline, "trajectories", 1.0, resampling())
    assert result.threshold.value > 100
    for each in (result.threshold, result.ratio):
        assert each.interval is not None
        assert np.isfinite(each.interval).all()
    assert result.threshold.interval is not None
    assert result.threshold.interval[0] > 100, "of one rising seed at least"
    assert share_unlearned(baseline, resampling()) == pytest.approx((2 / 3) ** 3, abs=0.08)
    assert share_unlearned(lines("sync", 1.0), resampling()) == 0


def test_a_baseline_always_comes_to_its_own_end():
    """Also where rounding makes a mean of resampled runs differ in its last digit."""
    generator = np.random.default_rng(1)
    for _ in range(50):
        gains = generator.uniform(0.1, 9, (3, 50)).cumsum(axis=1)
        rising = series(*(run(seed, gains[seed], tags={"schedule": "sync"}) for seed in range(3)))
        result = speedup(lines("async", 9.0), rising, "seconds", 1.0, resampling())
        assert np.isfinite(result.baseline_needs.value)
        assert result.baseline_needs.interval is not None
        assert np.isfinite(result.baseline_needs.interval).all()
        assert result.threshold.value == pytest.approx(rising.last(RETURN.metric).mean())


def test_the_threshold_is_the_final_return_also_where_seeds_take_different_time():
    """Seed 1 falls at its end, which is after that of seed 0: the mean where seed 0 ends is higher than the final."""
    tags = {"schedule": "sync"}
    late = run(1, lambda n: np.minimum(n, 8 * (45 - n)), seconds=12.0, tags=tags)
    baseline = series(run(0, lambda n: n, tags=tags), late)
    result = speedup(lines("async", 1.0), baseline, "seconds", 1.0, resampling())
    final = baseline.last(RETURN.metric).mean()
    assert result.threshold.value == pytest.approx(final)
    assert baseline.aligned(RETURN.metric, "seconds").values[:, -1].mean() > final + 1
    assert np.isfinite(result.series_needs.value)


def test_one_seed_of_the_series_leaves_the_baselines_numbers_their_intervals():
    noisy = [run(seed, lambda n, seed=seed: (seed + 1) * n, tags={"schedule": "sync"}) for seed in range(3)]
    result = speedup(lines("async", 2.0, seeds=1), series(*noisy), "seconds", 0.5, resampling())
    assert result.threshold.interval is not None
    assert result.baseline_needs.interval is not None
    assert (result.series_needs.interval, result.ratio.interval) == (None, None)
    near, far = approaching("async", 1.0), approaching("sync", 0.5)
    alone = reach(replace(near, runs=near.runs[:1]), far, DISTANCE, "trajectories", 40.0, resampling())
    assert alone.needs.interval is None
    assert alone.baseline_needs is not None
    assert alone.baseline_needs.interval is not None
