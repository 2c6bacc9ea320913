"""Replaying recorded runs of fakes, whose results depend on the order of everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mbrl_async.runtime.recovery import Forgetful
from mbrl_async.runtime.replay import DeviationError, Replay
from mbrl_async.runtime.schedule import COLLECT, IMPROVE_POLICY, LEARN_MODEL, WORKERS, Schedule
from mbrl_async.runtime.simulated import Simulated
from mbrl_async.runtime.state import RunSummary
from mbrl_async.runtime.stop import Ending, StopRule, StopSignal
from mbrl_async.runtime.threads import Threads
from mbrl_async.runtime.trace import StepRecord, write_trace
from tests.contracts.test_backends import THREE_NUMBERS, counting_torch_threads
from tests.runtime.fakes import FakePolicyLearner, MemoryKeeper, Recorder, Wires, fake_makers

ONE_THREAD = dict.fromkeys(WORKERS, 1)
RULE = StopRule(9, None, None)
PERIOD = 0.002  # seconds: short, but it makes the threads truly overlap
BACKENDS = {
    "threads": lambda: Threads(torch_threads=ONE_THREAD, learner_niceness=0, hang_seconds=None),
    "simulated": lambda: Simulated(torch_threads=ONE_THREAD, costs="measured"),
}
SCHEDULES = {
    "sync": Schedule(warm_up=[], cycle=[{COLLECT: 3}, {LEARN_MODEL: 200}, {IMPROVE_POLICY: 4}]),
    "async": Schedule(
        warm_up=[{COLLECT: 1}, {LEARN_MODEL: 1}, {IMPROVE_POLICY: 1}], cycle=[dict.fromkeys(WORKERS, math.inf)]
    ),
    "two at once": Schedule(warm_up=[], cycle=[{COLLECT: 2, IMPROVE_POLICY: 3}, {LEARN_MODEL: 2, COLLECT: 1}]),
}


def record_run(backend: str, schedule: str) -> tuple[RunSummary, Wires, Recorder]:
    wires, recorder = Wires(), Recorder()
    makers = fake_makers(wires, period=PERIOD)
    summary = BACKENDS[backend]().run(makers, SCHEDULES[schedule], RULE, StopSignal(), recorder, Forgetful())
    return summary, wires, recorder


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., tuple[RunSummary, Wires, Recorder]]:
    def run(
        records: Sequence[StepRecord],
        schedule: str = "async",
        until: int | str | None = None,
        makers: dict | None = None,
        rule: StopRule = RULE,
    ) -> tuple[RunSummary, Wires, Recorder]:
        write_trace(tmp_path / "trace.jsonl", records)
        wires, recorder = Wires(), Recorder()
        backend = Replay(torch_threads=ONE_THREAD, trace=str(tmp_path / "trace.jsonl"), until=until)
        all_makers = fake_makers(wires, period=PERIOD) | (makers or {})
        return backend.run(all_makers, SCHEDULES[schedule], rule, StopSignal(), recorder, Forgetful()), wires, recorder

    return run


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_replay_is_the_recorded_run(replay, backend, schedule):
    recorded, wires, _ = record_run(backend, schedule)
    replayed, again, _ = replay(recorded.records, schedule)
    assert replayed.ending is Ending.FINISHED
    assert replayed.records == recorded.records
    assert replayed.counters.trajectories == recorded.counters.trajectories == 9
    assert again.trajectories.history == wires.trajectories.history
    for channel, channel_again in ((wires.models, again.models), (wires.policies, again.policies)):
        newest, newest_again = channel.get(), channel_again.get()
        assert newest is not None
        assert newest_again is not None
        assert newest.version == newest_again.version
        assert all(torch.equal(newest.parameters[name], newest_again.parameters[name]) for name in newest.parameters)
    assert sorted(again.closed.history) == sorted(WORKERS)


@pytest.mark.parametrize("schedule", ["async", "sync"])
def test_a_replay_keeps_the_books_of_the_recorded_run(replay, schedule):
    recorded, _, recorder = record_run("simulated", schedule)
    _, _, again = replay(recorded.records, schedule)
    assert len(again.steps) == len(recorder.steps)
    # Not the second half: a step that the end of the run overtook was busy, but is not in the trace.
    for step in range(len(recorder.steps) // 2):
        (_, metrics, counters), (_, metrics_again, counters_again) = recorder.steps[step], again.steps[step]
        assert counters_again.env_steps == counters.env_steps
        assert metrics_again == pytest.approx(metrics)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_that_pulled_long_before_they_ended_see_what_they_saw_then(replay, schedule):
    recorded, _, _ = record_run("threads", schedule)
    stale = [
        record
        for position, record in enumerate(recorded.records)
        if record.worker == COLLECT
        and record.pulled["policy"] < sum(each.worker == IMPROVE_POLICY for each in recorded.records[:position])
    ]
    assert stale or schedule == "sync", "the threads never overlapped: this run tests nothing"
    replayed, _, _ = replay(recorded.records, schedule)
    assert replayed.failure is None


def test_each_worker_has_its_own_number_of_torch_threads(tmp_path):
    recorded, _, _ = record_run("simulated", "sync")
    write_trace(tmp_path / "trace.jsonl", recorded.records)
    seen: dict[str, set[int]] = {}
    makers = counting_torch_threads(fake_makers(Wires(), period=PERIOD), seen)
    backend = Replay(torch_threads=THREE_NUMBERS, trace=str(tmp_path / "trace.jsonl"), until=None)
    replayed = backend.run(makers, SCHEDULES["sync"], RULE, StopSignal(), Recorder(), Forgetful())
    assert replayed.ending is Ending.FINISHED
    assert seen == {worker: {number} for worker, number in THREE_NUMBERS.items()}


def deviation(summary: RunSummary) -> str:
    assert summary.ending is Ending.FAILED
    assert summary.failure is not None
    assert isinstance(summary.failure.error, DeviationError)
    return str(summary.failure.error)


@pytest.mark.parametrize("worker", WORKERS)
def test_another_result_is_found_at_its_step(replay, worker):
    recorded, _, _ = record_run("threads", "async")
    position, record = next(
        (position, record)
        for position, record in enumerate(recorded.records)
        if record.worker == worker and record.index == 2
    )
    records = [*recorded.records]
    records[position] = replace(record, digest="0" * 32)
    replayed, _, _ = replay(records)
    assert deviation(replayed) == (
        f"step 2 of {worker} (record {position + 1} of the trace) has another result than the recorded one."
    )
    assert replayed.failure is not None
    assert replayed.failure.worker == worker
    assert replayed.records == recorded.records[:position]


def test_a_worker_that_draws_differently_is_found_at_its_step(replay):
    class Other(FakePolicyLearner):
        def step(self):
            report = super().step()
            if self.wires.policies.get() is not None:
                self.value.add_(1e-6)
            return report

    recorded, _, _ = record_run("threads", "async")
    wires = Wires()
    makers = fake_makers(wires, period=PERIOD) | {IMPROVE_POLICY: lambda clock: Other(wires, clock)}
    replayed, _, _ = replay(recorded.records, makers=makers)
    assert deviation(replayed).startswith("step 2 of improve_policy ")


def test_a_version_that_was_not_there_is_found(replay):
    recorded, _, _ = record_run("threads", "async")
    position = next(i for i, record in enumerate(recorded.records) if record.worker == COLLECT and record.index == 3)
    records = [*recorded.records]
    records[position] = replace(records[position], pulled={"policy": 10_000})
    replayed, _, _ = replay(records)
    assert "step 3 of collect" in deviation(replayed)
    assert "the recorded one {'policy': 10000}" in deviation(replayed)


def test_a_worker_that_the_algorithm_does_not_have_is_named(replay):
    recorded, _, _ = record_run("threads", "async")
    unknown = replace(recorded.records[0], worker="improve_model")
    replayed, _, _ = replay([unknown])
    assert replayed.failure is not None
    assert "improve_model" in str(replayed.failure.error)


@pytest.mark.parametrize("until", [1, 5, "learn_model:3", "collect:9"])
def test_a_replay_stops_where_it_is_told(replay, until):
    recorded, _, _ = record_run("threads", "async")
    replayed, wires, _ = replay(recorded.records, until=until)
    worker, _, index = str(until).partition(":")
    expected = until if isinstance(until, int) else None
    if expected is None:
        expected = 1 + next(
            i for i, each in enumerate(recorded.records) if (each.worker, each.index) == (worker, int(index))
        )
    assert replayed.records == recorded.records[:expected]
    assert replayed.ending is Ending.FINISHED
    collected = [record.index for record in replayed.records if record.worker == COLLECT]
    assert wires.trajectories.history == collected


def test_a_replay_is_not_resumed(tmp_path):
    wires = Wires()
    keeper = MemoryKeeper(wires)
    makers = fake_makers(wires, period=PERIOD)
    recorded = BACKENDS["simulated"]().run(makers, SCHEDULES["async"], RULE, StopSignal(), Recorder(), keeper)
    write_trace(tmp_path / "trace.jsonl", recorded.records)
    backend = Replay(torch_threads=ONE_THREAD, trace=str(tmp_path / "trace.jsonl"), until=None)
    again = Wires()
    resumed, makers = keeper.resumed(5, again), fake_makers(again, period=PERIOD)
    replayed = backend.run(makers, SCHEDULES["async"], RULE, StopSignal(), Recorder(), resumed)
    assert replayed.failure is not None
    assert str(replayed.failure.error) == "A replay cannot be resumed: start it again, for it waits for no real time."
    assert replayed.records == []


def test_a_shorter_stop_rule_counts(replay):
    recorded, _, _ = record_run("threads", "async")
    replayed, wires, _ = replay(recorded.records, rule=StopRule(2, None, None))
    assert replayed.counters.trajectories == 2
    assert len(wires.trajectories.history) == 2


def test_a_replay_can_be_interrupted(tmp_path):
    recorded, _, _ = record_run("threads", "async")
    write_trace(tmp_path / "trace.jsonl", recorded.records)
    stop = StopSignal()
    recorder = Recorder(lambda record: stop.interrupt() if (record.worker, record.index) == (COLLECT, 4) else None)
    backend = Replay(torch_threads=ONE_THREAD, trace=str(tmp_path / "trace.jsonl"), until=None)
    replayed = backend.run(fake_makers(Wires(), period=PERIOD), SCHEDULES["async"], RULE, stop, recorder, Forgetful())
    assert replayed.ending is Ending.KILLED
    assert replayed.counters.trajectories == 4


@pytest.mark.parametrize(
    ("until", "sentence"),
    [
        (0, r"replay\.until=0 names no step of this trace"),
        (4, r"replay\.until=4 names no step of this trace, which has 3: give a position from 1 to 3"),
        ("collect:2", r"replay\.until=collect:2 names no step .* such as improve_policy:1"),
        ("planner:1", r"replay\.until=planner:1 names no step"),
        ("collect", r"replay\.until=collect names no step"),
    ],
)
def test_a_step_that_is_not_in_the_trace_is_refused(replay, until, sentence):
    recorded, _, _ = record_run("simulated", "async")
    with pytest.raises(ValueError, match=sentence):
        replay(recorded.records[:3], until=until)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda records: [], "holds no step: that run ended before its first one"),
        (lambda records: [replace(records[0], digest=None)], "has no digest at record 1"),
        (lambda records: [records[0], records[0]], "is damaged: record 2 is step 1 of collect, but step 2"),
        (lambda records: [each for each in records if each.worker != COLLECT or each.index > 1], "step 1 of collect"),
    ],
    ids=["empty", "no digest", "a step twice", "the first step is missing"],
)
def test_a_trace_that_cannot_be_replayed_is_refused(replay, change, sentence):
    recorded, _, _ = record_run("simulated", "async")
    with pytest.raises(ValueError, match=sentence):
        replay(change(recorded.records))
