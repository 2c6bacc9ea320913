"""The collector of a system that takes time to reset, waits, and can be lost."""

from __future__ import annotations

import numpy as np
import pytest

from mbrl_async.runtime.stop import Ending
from mbrl_async.types import Interrupted, SystemLostError
from tests.workers.bench import HORIZON, PERIOD, Bench, RobotLike, make_policy


def test_a_reset_takes_the_runs_time_but_no_control_step():
    bench = Bench(RobotLike(), pace=0.5)
    bench.collector.pull()
    report = bench.collector.step()
    assert bench.clock.now() == 0.5 * (1.0 + HORIZON * PERIOD)
    assert report.collection_seconds == 0.5 * (1.0 + HORIZON * PERIOD)
    assert report.env_steps == HORIZON
    assert report.metrics["lateness_max_ms"] == 0.0


def test_a_task_may_say_more_of_a_trajectory_than_its_rewards():
    bench = Bench(RobotLike())
    bench.collector.pull()
    assert bench.collector.step().metrics["rows"] == HORIZON + 1


def test_a_trajectory_in_which_the_system_was_lost_leaves_no_trace(caplog):
    bench, undisturbed = Bench(RobotLike(lost_at=(4, 1))), Bench(RobotLike())
    for each in (bench, undisturbed):
        each.policies.put(make_policy(1).state_dict())
        each.collect()
        each.collect()
    for one, other in zip(bench.trajectories.history, undisturbed.trajectories.history, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
    assert caplog.messages == [
        f"The trajectory does not count, and is made anew: gone at step {step}" for step in (4, 1)
    ]


def test_a_system_that_is_lost_again_and_again_ends_the_run():
    bench = Bench(RobotLike(lost_at=(4, 1, 2)))
    bench.collector.pull()
    with pytest.raises(SystemLostError, match="gone at step 2"):
        bench.collector.step()


def test_a_task_that_waits_hears_of_the_end():
    bench = Bench(RobotLike())
    bench.stop.request(Ending.KILLED)
    bench.collector.pull()
    with pytest.raises(Interrupted):
        bench.collector.step()


def test_a_robots_time_cannot_be_made_faster():
    with pytest.raises(ValueError, match=r"pace\.factor=0\.5 cannot be used with a robot"):
        Bench(RobotLike(real_time=True), pace=0.5)
