"""Every algorithm with every schedule runs, on two tasks, or is refused in a sentence.

A new file in conf/algorithm or conf/schedule is covered by being there.
"""

from __future__ import annotations

from collections import Counter

import pytest
import yaml

from mbrl_async.config import ConfigError
from mbrl_async.experiment import build_experiment
from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.stop import Ending, StopSignal
from mbrl_async.runtime.trace import StepRecord
from tests.runtime.fakes import Recorder
from tests.small import CONFIG_DIRECTORY, FIXED_COSTS, composed, options, small

LINEAR_QUADRATIC = ("env=linear_quadratic",)
HOPPER = ("env=hopper", "env.horizon=10")
COSTS = (*FIXED_COSTS, "simulated.costs.learn_model=0.5", "simulated.costs.improve_policy=1")
NUMBERS = {"rollouts": 2, "epochs": 2, "updates": 2, "turns": 2}
REFUSED = {("trpo", "async"), ("ppo", "async")}
"""On-policy methods have nothing to gain from data of older policies."""


def overrides(algorithm: str, schedule: str, *task: str) -> tuple[str, ...]:
    """Without composing more than once for each algorithm: that takes longer than to run."""
    numbers = yaml.safe_load((CONFIG_DIRECTORY / "schedule" / f"{schedule}.yaml").read_text()).get("iteration", {})
    few = (f"iteration.{name}={NUMBERS[name]}" for name in numbers)
    return (*small(f"algorithm={algorithm}", "schedule=sync"), *COSTS, f"schedule={schedule}", *few, *task)


@pytest.mark.parametrize(
    "task", [LINEAR_QUADRATIC, pytest.param(HOPPER, marks=pytest.mark.slow)], ids=lambda task: task[0]
)
@pytest.mark.parametrize("schedule", options("schedule"))
@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_every_combination_runs_or_is_refused_in_a_sentence(algorithm, schedule, task):
    cfg = composed(*overrides(algorithm, schedule, *task), "stop.trajectories=5")
    if (algorithm, schedule) in REFUSED:
        with pytest.raises(ConfigError, match=r"this schedule .*: use schedule=sync\.$"):
            build_experiment(cfg)
        return
    experiment = build_experiment(cfg)
    recorder = Recorder()
    summary = experiment.backend.run(
        experiment.makers, experiment.schedule, experiment.rule, StopSignal(), recorder, Forgetful()
    )
    assert summary.failure is None, summary.failure
    assert summary.ending is Ending.FINISHED
    assert summary.counters.trajectories == 5
    steps = Counter(record.worker for record in summary.records)
    assert set(steps) == set(cfg.algorithm.workers), "everybody who takes part worked, and nobody else"
    assert used_what_was_learned(summary.records), "what acted at the end was learned"
    metrics = set().union(*(names for _, names, _ in recorder.steps))
    shares = {name.partition("_")[2] for name in metrics if name.startswith("share/")}
    assert shares == set(cfg.algorithm.workers), "only those who take part have shares of time"


def used_what_was_learned(records: list[StepRecord]) -> bool:
    newest = [record for record in records if record.worker == "collect"][-1]
    return all(version > 0 for version in newest.pulled.values())
