"""Whole runs with other tasks, models and starts than the paper's: they end, and every number is finite."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mbrl_async.experiment import Experiment, build_experiment
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.stop import Ending, StopSignal
from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.types import Metrics
from tests.small import FEW_STEPS, FIXED_COSTS, composed, small

EXAMPLES = Path(__file__).parents[1] / "examples"
FALLING = ("env=gymnasium", "env.id=InvertedPendulum-v5", "env.horizon=40")
SYNC = ("schedule=sync", *FEW_STEPS)


class Finite:
    """Notes every metric; none may be NaN or infinite."""

    def on_step(self, record: StepRecord, metrics: Metrics, counters: Counters) -> None:
        wrong = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        assert not wrong, (record, counters)


def run(*overrides: str) -> Experiment:
    experiment = build_experiment(composed(*small(*overrides), *FIXED_COSTS))
    summary = experiment.backend.run(
        experiment.makers, experiment.schedule, experiment.rule, StopSignal(), Finite(), Forgetful()
    )
    assert summary.failure is None, summary.failure
    assert summary.ending is Ending.FINISHED
    trajectories = experiment.channels.trajectories.history
    assert len(trajectories) == summary.counters.trajectories == 5
    assert summary.counters.env_steps == sum(trajectory.length for trajectory in trajectories)
    return experiment


@pytest.mark.parametrize("dynamics", ["ensemble", "probabilistic"])
@pytest.mark.parametrize("algorithm", ["me_trpo", "me_ppo", "mb_mpo", "mb_mpc"])
def test_any_task_with_learned_reward_and_termination(algorithm, dynamics):
    experiment = run(*FALLING, f"algorithm={algorithm}", f"dynamics={dynamics}")
    trajectories = experiment.channels.trajectories.history
    assert any(trajectory.terminated for trajectory in trajectories), "nothing fell: nothing was tested"
    assert {trajectory.length for trajectory in trajectories} != {40}


@pytest.mark.parametrize("algorithm", ["trpo", "ppo"])
def test_terminations_without_a_model(algorithm):
    run("env=inverted_pendulum_v5", f"algorithm={algorithm}", "schedule=sync", "iteration.rollouts=2")


def test_known_terminations_end_imagined_rollouts():
    run("env=inverted_pendulum_v5", *SYNC)


@pytest.mark.parametrize("schedule", [(), SYNC])
def test_stored_starts_with_the_probabilistic_model(schedule):
    experiment = run("algorithm.starts=stored", "dynamics=probabilistic", *schedule)
    published = experiment.channels.models.get()
    assert published is not None
    starts = [torch.from_numpy(each.observations[0]) for each in experiment.channels.trajectories.history]
    kept = int(published.parameters["starts.appended"])
    assert torch.equal(published.parameters["starts.rows"][:kept], torch.stack(starts[:kept]))


def test_a_reward_by_its_target_is_passed_on_not_called():
    run("env=pendulum", "env.reward._target_=mbrl_async.envs.known_rules.pendulum_reward", "env.termination=learned")


def test_the_users_own_task_is_found_beside_its_file():
    experiment = run(f"hydra.searchpath=[file://{EXAMPLES}]", "env=mountain_car", "env.horizon=20")
    trajectory = experiment.channels.trajectories.history[0]
    assert trajectory.observations.shape == (21, 2)
    documented = (EXAMPLES.parent / "docs" / "tasks.md").read_text()
    assert "python main.py --config-dir examples env=mountain_car" in documented
