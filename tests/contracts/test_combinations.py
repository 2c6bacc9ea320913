"""Every algorithm runs with every schedule, or is refused in a sentence, and on every task.

A new file in conf/algorithm, conf/schedule or conf/env is covered by being there. A schedule knows nothing of the task,
so the two need not meet in every combination.
"""

from __future__ import annotations

from collections import Counter

import pytest
import yaml
from omegaconf import DictConfig

from mbrl_async.config import ConfigError
from mbrl_async.experiment import build_experiment
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.stop import Ending, StopSignal
from mbrl_async.runtime.trace import StepRecord
from tests.runtime.fakes import Recorder
from tests.small import CONFIG_DIRECTORY, FIXED_COSTS, composed, options, small

COSTS = (*FIXED_COSTS, "simulated.costs.learn_model=0.5", "simulated.costs.improve_policy=1")
NUMBERS = {"rollouts": 2, "epochs": 2, "updates": 2, "turns": 2}
REFUSED = {("trpo", "async"), ("ppo", "async")}
"""On-policy methods have nothing to gain from data of older policies."""


def overrides(algorithm: str, schedule: str) -> tuple[str, ...]:
    """Without composing more than once for each algorithm: that takes longer than to run."""
    numbers = yaml.safe_load((CONFIG_DIRECTORY / "schedule" / f"{schedule}.yaml").read_text()).get("iteration", {})
    few = (f"iteration.{name}={NUMBERS[name]}" for name in numbers)
    return (*small(f"algorithm={algorithm}", "schedule=sync"), *COSTS, f"schedule={schedule}", *few)


@pytest.mark.parametrize("schedule", options("schedule"))
@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_every_algorithm_runs_with_every_schedule_or_is_refused_in_a_sentence(algorithm, schedule):
    cfg = composed(*overrides(algorithm, schedule), "stop.trajectories=5")
    if (algorithm, schedule) in REFUSED:
        with pytest.raises(ConfigError, match=r"this schedule .*: use schedule=sync\.$"):
            build_experiment(cfg)
    else:
        require_that_everybody_works(cfg, trajectories=5)


@pytest.mark.slow
@pytest.mark.parametrize("env", options("env"))
@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_every_algorithm_runs_on_every_task(algorithm, env):
    cfg = composed(*overrides(algorithm, "sync"), f"env={env}", "env.horizon=10", "stop.trajectories=3")
    require_that_everybody_works(cfg, trajectories=3)


def require_that_everybody_works(cfg: DictConfig, trajectories: int) -> None:
    experiment = build_experiment(cfg)
    recorder = Recorder()
    summary = experiment.backend.run(
        experiment.makers, experiment.schedule, experiment.rule, StopSignal(), recorder, Forgetful()
    )
    assert summary.failure is None, summary.failure
    assert summary.ending is Ending.FINISHED
    assert summary.counters.trajectories == trajectories
    steps = Counter(record.worker for record in summary.records)
    assert set(steps) == set(cfg.algorithm.workers), "everybody who takes part worked, and nobody else"
    assert used_what_was_learned(summary.records), "what acted at the end was learned"
    metrics = set().union(*(names for _, names, _ in recorder.steps))
    shares = {name.partition("_")[2] for name in metrics if name.startswith("share/")}
    assert shares == set(cfg.algorithm.workers), "only those who take part have shares of time"


def used_what_was_learned(records: list[StepRecord]) -> bool:
    newest = [record for record in records if record.worker == "collect"][-1]
    return all(version > 0 for version in newest.pulled.values())
