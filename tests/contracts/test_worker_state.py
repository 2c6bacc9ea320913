"""Every worker of every algorithm goes on, from another's saved state, exactly as that one does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from mbrl_async.experiment import Experiment, build_experiment
from mbrl_async.runtime.clock import VirtualClock
from mbrl_async.runtime.schedule import COLLECT
from mbrl_async.runtime.stop import StopSignal
from mbrl_async.runtime.worker import Worker
from mbrl_async.types import INPUTS, State
from tests.small import composed, options, small

ROUNDS = 3  # enough for Adam's moments, early stopping and a learnt policy to matter


class Bench:
    """The workers of one experiment, stepped by hand in the order in which they are named."""

    def __init__(self, algorithm: str, seed: int) -> None:
        overrides = small("schedule=sync", f"algorithm={algorithm}")
        self.experiment: Experiment = build_experiment(composed(*overrides, f"seed={seed}"))
        clock = VirtualClock(StopSignal())
        self.workers = {name: make(clock) for name, make in self.experiment.makers.items()}

    def step(self, worker: Worker) -> dict[str, float] | None:
        """What a whole step reports; None if there was nothing to do."""
        if not worker.pull():
            return None
        report = worker.step()
        worker.push()
        return report.metrics

    def round(self) -> list[dict[str, float] | None]:
        return [self.step(worker) for worker in self.workers.values()]

    def published(self) -> State:
        channels = self.experiment.channels
        return {"model": channels.models.state_dict(), "policy": channels.policies.state_dict()}

    def states(self) -> State:
        return {name: worker.state_dict() for name, worker in self.workers.items()}

    def take_over(self, channels: State, states: State) -> None:
        self.experiment.channels.models.load_state_dict(channels["model"])
        self.experiment.channels.policies.load_state_dict(channels["policy"])
        for name, worker in self.workers.items():
            worker.load_state_dict(states[name])


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Where two states differ."""
    if isinstance(first, Mapping):
        assert first.keys() == second.keys(), where
        return [each for key in first for each in differences(first[key], second[key], f"{where}/{key}")]
    if isinstance(first, torch.Tensor):
        assert (first.shape, first.dtype) == (second.shape, second.dtype), where
        first, second = first.numpy(), second.numpy()
    numbers = isinstance(first, np.ndarray) and first.dtype.kind == "f"
    return [] if np.array_equal(first, second, equal_nan=numbers) else [where]


algorithms = pytest.mark.parametrize("algorithm", options("algorithm"))


@algorithms
def test_a_restored_worker_goes_on_to_the_last_bit(algorithm):
    original, restored = Bench(algorithm, seed=0), Bench(algorithm, seed=1)
    for _ in range(ROUNDS):
        original.round()
    restored.take_over(original.published(), original.states())
    for _ in range(ROUNDS):
        assert original.round() == restored.round()
    assert differences(original.published(), restored.published()) == []
    assert differences(original.states(), restored.states()) == []


@algorithms
def test_a_state_is_a_copy_and_independent_of_what_its_owner_does_next(algorithm):
    bench, reference = Bench(algorithm, seed=0), Bench(algorithm, seed=0)
    for each in (bench, reference):
        for _ in range(ROUNDS):
            each.round()
    states = bench.states()
    for _ in range(ROUNDS):
        bench.round()
    assert differences(states, reference.states()) == []


@algorithms
def test_a_state_that_was_taken_between_pull_and_step_leads_to_the_same_step(algorithm):
    """Whatever is published in between: the step in flight has its inputs already."""
    original, restored = Bench(algorithm, seed=0), Bench(algorithm, seed=1)
    for _ in range(ROUNDS):
        original.round()
    for name, worker in original.workers.items():
        assert worker.pull()
        restored.workers[name].load_state_dict(worker.state_dict())
        assert worker.step().metrics == restored.workers[name].step().metrics
        assert dict(worker.pulled) == dict(restored.workers[name].pulled)
        worker.push()


@algorithms
def test_a_collector_that_goes_on_from_such_a_state_may_also_pull_again(algorithm):
    """A step in the real system is not done again: after an interruption its worker begins another, and pulls."""
    original, restored = Bench(algorithm, seed=0), Bench(algorithm, seed=1)
    for _ in range(ROUNDS):
        original.round()
    collector, other = original.workers[COLLECT], restored.workers[COLLECT]
    assert collector.pull()
    restored.take_over(original.published(), original.states())
    assert other.pull()
    assert collector.step().metrics == other.step().metrics
    assert differences(collector.state_dict(), other.state_dict()) == []


@algorithms
def test_without_its_inputs_a_restored_worker_pulls_them_again(algorithm):
    original, restored = Bench(algorithm, seed=0), Bench(algorithm, seed=1)
    for _ in range(ROUNDS):
        original.round()
    without = {
        name: {key: value for key, value in state.items() if key != INPUTS} for name, state in original.states().items()
    }
    restored.take_over(original.published(), without)
    for _ in range(ROUNDS):
        assert original.round() == restored.round()


@algorithms
def test_a_pull_that_finds_nothing_changes_nothing(algorithm):
    bench = Bench(algorithm, seed=0)
    before = bench.states()
    idle = [name for name, worker in bench.workers.items() if not worker.pull()]
    assert idle, "whoever learns has nothing to learn from before the first trajectory"
    for name in idle:
        assert differences(before[name], bench.workers[name].state_dict()) == []
