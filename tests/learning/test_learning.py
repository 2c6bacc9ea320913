"""Whole runs that must learn: bounds with their odds, on the virtual clock, so that no load of the machine matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mbrl_async.envs.linear_quadratic import LinearQuadratic
from mbrl_async.experiment import build_experiment
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.stop import Ending, StopSignal
from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.types import Metrics
from tests.optimum import optimal_return
from tests.small import FIXED_COSTS, composed

POINT_MASS = (
    "env=linear_quadratic",
    "dynamics.ensemble.hidden=[64,64]",
    "stop.trajectories=30",
    *FIXED_COSTS,
)


class Returns:
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:  # noqa: ARG002
        if "collect/return" in metrics:
            self.values.append(metrics["collect/return"])


def returns_of(*overrides: str) -> list[float]:
    experiment = build_experiment(composed(*overrides))
    returns = Returns()
    summary = experiment.backend.run(
        experiment.makers, experiment.schedule, experiment.rule, StopSignal(), returns, Forgetful()
    )
    assert summary.failure is None, summary.failure
    assert summary.ending is Ending.FINISHED
    return returns.values


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["async", "sync"])
def test_me_trpo_comes_near_the_known_optimum_of_a_point_mass(schedule):
    shares = shares_of_the_optimum(*POINT_MASS, f"schedule={schedule}")
    assert np.mean(shares) > 0.9, shares


@pytest.mark.slow
def test_mb_mpo_comes_near_the_known_optimum_of_a_point_mass():
    # Fewer updates than ME-TRPO gets, because a meta update takes longer to compute. When the bound was set,
    # the five seeds reached 1.01, 1.00, 1.01, 0.98 and 0.99.
    fewer = ("algorithm.improvement.rollouts=5", "simulated.costs.improve_policy=1.0", "stop.trajectories=20")
    shares = shares_of_the_optimum(*POINT_MASS, "algorithm=mb_mpo", *fewer)
    assert np.mean(shares) > 0.9, shares


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (
            "algorithm=me_ppo",
            "algorithm.improvement.rollouts=20",
            "simulated.costs.improve_policy=0.2",
            "stop.trajectories=25",
        ),
        ("algorithm=mb_mpc", "algorithm/planner=cem_small", "stop.trajectories=12"),
        # Without a model: more and larger updates than with the paper's settings, under which the spread of the
        # actions hardly shrinks in so few trajectories, and costs more than is asked for.
        ("algorithm=trpo", "schedule=sync", "iteration.rollouts=20", "stop.trajectories=800"),
        (
            "algorithm=ppo",
            "schedule=sync",
            "iteration.rollouts=10",
            "algorithm.improvement.update.learning_rate=3e-3",
            "algorithm.improvement.update.gradient_steps=20",
            "stop.trajectories=400",
        ),
    ],
    ids=lambda overrides: overrides[0],
)
def test_the_other_algorithms_come_near_the_known_optimum_of_a_point_mass(overrides):
    # When the bound was set, seeds 0 to 4 reached (one was not noted):
    #   me_ppo 0.99, 0.99, 1.00, 0.98, 0.98; mb_mpc ?, 0.94, 0.97, 0.94, 0.96;
    #   trpo 0.94, 0.96, 0.95, 0.92, 0.85; ppo 0.97, 0.97, 0.98, 0.97, 0.98.
    shares = shares_of_the_optimum(*POINT_MASS, *overrides)
    assert np.mean(shares) > 0.85, shares


def shares_of_the_optimum(*overrides: str) -> list[float]:
    """Of 5 seeds: mean return of the last ten trajectories, relative to random (0) and the optimum (1)."""
    task = LinearQuadratic(horizon=50, control_period=0.1)
    generator = np.random.default_rng(0)
    optimum = np.mean([optimal_return(task, task.reset(generator)) for _ in range(500)])
    shares = []
    for seed in range(5):
        returns = returns_of(*overrides, f"seed={seed}")
        random = np.mean([random_return(task, generator) for _ in range(200)])
        shares.append(float((np.mean(returns[-10:]) - random) / (optimum - random)))
    return shares


def random_return(task: LinearQuadratic, generator: np.random.Generator) -> float:
    task.reset(generator)
    actions = generator.uniform(-1, 1, (task.spec.horizon, task.spec.action_size)).astype(np.float32)
    return sum(task.step(action)[1] for action in actions)


@pytest.mark.slow
def test_sync_is_bit_identical_on_threads_and_on_simulated_for_a_mujoco_task():
    small = (
        "schedule=sync",
        "iteration.rollouts=2",
        "iteration.epochs=3",
        "iteration.updates=3",
        "stop.trajectories=5",
    )

    def learned(*overrides: str) -> dict[str, torch.Tensor]:
        experiment = build_experiment(composed(*small, *overrides))
        experiment.backend.run(
            experiment.makers, experiment.schedule, experiment.rule, StopSignal(), Returns(), Forgetful()
        )
        newest = experiment.channels.policies.get()
        assert newest is not None
        return dict(newest.parameters)

    threads = learned("backend=threads", "pace.factor=0")
    simulated = learned(*FIXED_COSTS)
    assert all(torch.equal(tensor, simulated[name]) for name, tensor in threads.items())
