"""Any worker may raise at any step, on every backend: the run ends, names it, and can go on with all that it had."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.replay import Replay
from mbrl_async.runtime.schedule import COLLECT, WORKERS
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.trace import write_trace
from mbrl_async.runtime.worker import Worker, WorkerMaker
from mbrl_async.types import Clock, StepReport
from tests.contracts.test_backends import BACKENDS, ONE_THREAD, REAL_PERIOD, SCHEDULES, backends
from tests.runtime.fakes import MemoryKeeper, Recorder, Wires, fake_makers

MANY = 10_000
LATEST = 6
"""The step at which a worker raises is drawn from 1 to this."""

workers = pytest.mark.parametrize("worker", WORKERS)


class InjectedError(Exception):
    """What no worker raises by itself."""


@dataclass(frozen=True)
class Raising:
    """Makes a worker that raises in its step number `index`."""

    make: WorkerMaker
    index: int

    def __call__(self, clock: Clock) -> Worker:
        worker = self.make(clock)
        step, begun = worker.step, []

        def step_or_raise() -> StepReport:
            begun.append(1)
            if len(begun) == self.index:
                raise InjectedError(f"at step {self.index}")
            return step()

        worker.step = step_or_raise  # type: ignore[method-assign]
        return worker


def run(
    backend: str, schedule: str, wires: Wires, keeper: MemoryKeeper, trajectories: int, **broken: int
) -> RunSummary:
    """`broken`: worker -> the step in which it raises."""
    makers = fake_makers(wires, period=REAL_PERIOD)
    makers |= {name: Raising(makers[name], index) for name, index in broken.items()}
    rule = StopRule(trajectories, None, None)
    return BACKENDS[backend]().run(makers, SCHEDULES[schedule], rule, StopSignal(), Recorder(), keeper)


@backends
@pytest.mark.parametrize("schedule", ["sync", "async"])
@workers
@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_raises_at_a_random_step_ends_a_run_that_can_go_on(backend, schedule, worker, seed):
    index = random.Random(f"{backend} {schedule} {worker} {seed}").randint(1, LATEST)
    wires = Wires()
    keeper = MemoryKeeper(wires)
    failed = run(backend, schedule, wires, keeper, MANY, **{worker: index})
    assert failed.ending is Ending.FAILED
    assert failed.failure is not None
    assert (failed.failure.worker, str(failed.failure.error)) == (worker, f"at step {index}")
    assert failed.unresponsive == ()
    assert sum(record.worker == worker for record in failed.records) == index - 1

    assert [entry.record for entry in keeper.entries] == failed.records, "every finished step is kept"
    collected = sum(record.worker == COLLECT for record in failed.records)
    assert wires.trajectories.history == list(range(1, collected + 1))

    resumed = Wires()
    past = keeper.resumed(len(keeper.entries), resumed)
    summary = run(backend, schedule, resumed, past, collected + 3)
    assert summary.ending is Ending.FINISHED
    assert summary.records[: len(failed.records)] == failed.records
    everything = list(range(1, collected + 4))
    assert resumed.trajectories.history == everything
    assert resumed.received.history + resumed.trajectories.drain() == everything


@workers
def test_a_worker_that_raises_in_a_replay_is_named(worker, tmp_path: Path):
    wires = Wires()
    recorded = run("threads", "async", wires, MemoryKeeper(wires), 9)
    index = random.Random(worker).randint(1, sum(record.worker == worker for record in recorded.records))
    write_trace(tmp_path / "trace.jsonl", recorded.records)
    backend = Replay(torch_threads=ONE_THREAD, trace=str(tmp_path / "trace.jsonl"), until=None)
    again = Wires()
    makers = fake_makers(again, period=REAL_PERIOD)
    makers[worker] = Raising(makers[worker], index)
    rule = StopRule(9, None, None)
    summary = backend.run(makers, SCHEDULES["async"], rule, StopSignal(), Recorder(), Forgetful())
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert (summary.failure.worker, str(summary.failure.error)) == (worker, f"at step {index}")
    collected = sum(record.worker == COLLECT for record in summary.records)
    assert again.trajectories.history == list(range(1, collected + 1))
