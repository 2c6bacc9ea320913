"""The collector whose actions are planned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mbrl_async.algorithms.planning import CrossEntropyMethod, Planner, PlanSearch, RandomShooting
from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.runtime.channels import Latest, Stream
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.types import Trajectory
from mbrl_async.workers.acting import PlanningActor
from mbrl_async.workers.collector import Collector
from tests.workers.bench import HORIZON, PERIOD, RobotLike, generator, make_ensemble


def planning_collector(
    computing_cost: float = 0.0, task: LinearQuadratic | None = None, search: PlanSearch | None = None
) -> tuple[Collector, Latest, VirtualClock, Stream[Trajectory]]:
    models, trajectories, clock = Latest(), Stream[Trajectory](), VirtualClock(StopSignal(), computing_cost)
    task = task or LinearQuadratic(horizon=HORIZON, control_period=PERIOD)
    actor = PlanningActor(
        planner=Planner(search=search or RandomShooting(candidates=8), horizon=2, particles=1),
        ensemble=make_ensemble(),
        models=models,
        task=task,
        action_generator=generator(),
    )
    collector = Collector(
        task=task,
        actor=actor,
        trajectories=trajectories,
        pace=1.0,
        clock=clock,
        environment_generator=np.random.default_rng(0),
    )
    return collector, models, clock, trajectories


def test_the_planner_acts_at_random_until_there_is_a_model_and_then_with_the_newest():
    collector, models, _, trajectories = planning_collector()
    collector.pull()
    collector.step()
    collector.push()
    models.put(make_ensemble(1).state_dict())
    models.put(make_ensemble(2).state_dict())
    collector.pull()
    collector.step()
    collector.push()
    random, planned = trajectories.history
    assert (random.policy_version, planned.policy_version) == (0, 2)
    assert collector.pulled == {"model": 2}
    assert np.abs(planned.actions).max() <= 1


@pytest.mark.parametrize(
    ("seconds", "misses", "duration"),
    [(0.25 * PERIOD, 0, HORIZON * PERIOD), (1.5 * PERIOD, HORIZON, HORIZON * 1.5 * PERIOD)],
)
def test_an_action_that_takes_longer_than_a_control_period_is_a_counted_miss(seconds, misses, duration):
    collector, _, clock, _ = planning_collector(seconds)
    collector.pull()
    report = collector.step()
    assert report.metrics["acting_misses"] == misses
    assert report.metrics["acting_max_ms"] == pytest.approx(1000 * seconds)
    assert clock.now() == pytest.approx(duration)


def test_a_plan_does_not_outlast_a_trajectory_that_was_lost():
    actions = []
    for lost_at in ((), (4,)):
        search = CrossEntropyMethod(candidates=8, iterations=1, elite_share=0.5, initial_std=0.5)
        collector, models, _, _ = planning_collector(task=RobotLike(lost_at), search=search)
        models.put(make_ensemble(1).state_dict())
        collector.pull()
        collector.step()
        actions.append(collector.result()["actions"])
    assert torch.equal(*actions)
