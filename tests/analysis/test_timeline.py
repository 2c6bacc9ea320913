import numpy as np

from mbrl_async.analysis.timeline import Timeline, busy_shares, timelines
from mbrl_async.runtime.trace import StepRecord


def test_workers_come_in_the_order_in_which_they_began_and_steps_in_the_order_of_time():
    trace = [
        StepRecord("improve_policy", 1, 5.0, 6.0, {}),
        StepRecord("collect", 2, 4.0, 8.0, {}),
        StepRecord("collect", 1, 0.0, 4.0, {}),
    ]
    rows = timelines(trace)
    assert [row.worker for row in rows] == ["collect", "improve_policy"]
    assert rows[0].starts.tolist() == [0, 4]
    assert rows[0].finishes.tolist() == [4, 8]


def test_busy_shares_of_a_run_that_can_be_seen_at_a_glance():
    timeline = Timeline("collect", starts=np.array([1.0, 4.0]), finishes=np.array([3.0, 4.5]))
    assert busy_shares(timeline, np.array([0.0, 2.0, 4.0, 6.0])).tolist() == [0.5, 0.5, 0.25]


def test_busy_shares_are_the_overlaps_of_steps_and_bins():
    generator = np.random.default_rng(0)
    times = np.cumsum(generator.exponential(size=200))
    timeline = Timeline("learn_model", starts=times[0::2], finishes=times[1::2])
    edges = np.linspace(0.0, times[-1] + 5.0, 38)
    overlaps = np.minimum(timeline.finishes, edges[1:, None]) - np.maximum(timeline.starts, edges[:-1, None])
    expected = overlaps.clip(min=0).sum(axis=1) / np.diff(edges)
    # Differences of sums of up to 200 seconds in double precision.
    np.testing.assert_allclose(busy_shares(timeline, edges), expected, atol=1e-12)
